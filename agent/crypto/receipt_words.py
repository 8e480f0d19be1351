"""This file knows the words on a receipt, in English and Chinese, and why a receipt is refused.

A receipt is read again after years, and its page must come out the same: whoever changes a word here, or the look
of the page, gives receipts.FORMAT another number and keeps the old page for the old ones. tests/vectors/receipt.txt
notices it.
"""

from agent.crypto.phrases import Words

RESULTS = {
    "loaded": Words("LOADED - the key works, the host has proved it", "已装载：密钥可用，主机已验证"),
    "destroyed": Words("DESTROYED - the EPP says that the slot is empty", "已销毁：密码键盘确认密钥槽为空"),
    "aborted": Words("ABORTED - the order was not carried out and is used up", "已中止：指令未执行并已作废"),
}
LABELS = {
    "result": Words("Result", "结果"),
    "cause": Words("Cause", "原因"),
    "kcv": Words("Check value", "校验值"),
    "slot": Words("Slot", "密钥槽"),
    "key": Words("Key", "密钥"),
    "terminal": Words("Terminal", "终端"),
    "serial": Words("EPP serial", "序列号"),
    "order": Words("Order", "指令"),
    "digest": Words("Its digest", "指令摘要"),
    "signers": Words("Its signers", "签发人"),
    "people": Words("People", "人员"),
    "parts": Words("Envelopes", "信封"),
    "block": Words("Key block", "密钥块"),
    "proof": Words("Host proof", "主机验证"),
    "applied": Words("Five days", "五日时限"),
    "installed": Words("Two days", "两日时限"),
    "erased": Words("Read empty", "读回为空"),
    "papers": Words("Destruction", "销毁签字"),
    "refused": Words("Refused", "已拒绝"),
    "ledger": Words("Ledger", "台账"),
    "hash": Words("Its hash", "台账哈希"),
    "software": Words("Software", "软件"),
    "steps": Words("Steps", "步骤"),
}
ROLES = {"key-manager": "key-manager 密钥管理员", "technician": "technician 技术员"}
KINDS = {"load": "load 装载", "compromise": "replace a suspected key 替换可疑密钥", "destroy": "destroy 销毁"}
METHODS = {"": "", "components": ", components 分量", "block": ", key block 密钥块"}
ALGORITHMS = {"T": "3DES", "D": "DES", "A": "AES"}
KCV_METHODS = {"zero": "zero block 零块加密", "cmac": "CMAC"}
PROOFS = {"echo": "echo 回显测试", "sign_on": "sign-on 签到", "mac": "MAC 报文校验"}
WITHIN = {"met": "MET 符合", "late": "LATE 超时", "not_done": "NOT INSTALLED 未安装"}
STEPS = {
    "applied": Words("the key was asked for", "已申请密钥"),
    "received": Words("the signed order came", "收到已签名指令"),
    "opened": Words("the order was opened", "指令已开启"),
    "joined": Words("{person} logged in", "{person}已登录"),
    "ready": Words("switch, service and doors are as ordered", "开关、服务与柜门符合要求"),
    "empty": Words("slot {slot} is empty before the loading", "装载前{slot}槽为空"),
    "envelope": Words("{person} opens envelope {envelope}", "{person}开启信封{envelope}"),
    "part": Words("component {number}: check value right", "第{number}分量校验值正确"),
    "wrong": Words("component {number}: wrong, {tries} of 3", "第{number}分量录入错误，第{tries}次"),
    "block": Words("the key block is the ordered one", "密钥块与指令一致"),
    "confirmed": Words("{person} confirms as the second", "{person}作为第二人确认"),
    "verified": Words("the key's check value is right", "密钥校验值正确"),
    "active": Words("the host has proved the key", "主机已验证密钥"),
    "erased": Words("slot {slot} was deleted and reads empty", "{slot}槽已删除，读回为空"),
    "signed": Words("{person} signs the destruction", "{person}签名确认销毁"),
    "login": Words("{person}: wrong password", "{person}密码错误"),
    "tampered": Words("all slots of the EPP are unknown", "全部密钥槽状态不明"),
    "aborting": Words("stopped; the slot is being deleted", "已中止，正在删除密钥槽"),
    "aborted": Words("ended; the order is used up", "结束，指令作废"),
    "trouble": Words("{en}", "{zh}"),
    "alarm": Words("{en}", "{zh}"),
}
"""A step of a ceremony by the event of its row; trouble and alarm bring their own sentence."""

TITLE = Words("TILLWIRE KEY RECEIPT", "密钥操作回执")
SIMULATOR = "***   SIMULATOR  模拟   "
MORE = "... {count} more steps in the signed part  其余{count}步见签名部分"
SPOILED = "SPOILED 作废"
ENTERED, OPENED, SEALED = "entered 已录入", "opened 已开启", "not opened 未开启"
NOBODY = "nobody signed 无人签名"
LEFT = "; destroy what is spoiled 请销毁作废信封"
EMPTY_BEFORE = " before 装载前"
NONE = "none 无"
PARTS = "number 编号 | check value 校验值 | group 组 | opened by 开启人"
FOOT = (
    "This page and the signed part below say the same. Times: {zone}. How to check both:",
    "本页与下方签名部分内容一致，时间为{zone}。核对方法：",
    "tillwire keys receipt --check FILE --key TERMINAL.pem",
    "Signatures 签字  ______________________________   ______________________________",
)

REFUSALS = {
    "not_ended": Words(
        "the order has not come to an end, so there is no receipt yet: two people sign first, or somebody stops it",
        "指令尚未结束，还没有回执：请先由两人签名，或中止操作",
    ),
    "too_large": Words(
        "this is larger than any receipt: give the file that the terminal wrote",
        "内容超过回执的最大长度：请提供终端写出的原文件",
    ),
    "not_valid": Words(
        "this is not a whole receipt: give the file as the terminal wrote it, from its title to the line END",
        "回执不完整：请提供终端写出的原文件，自标题至END行",
    ),
    "wrong_type": Words(
        "this was signed for another purpose and is no receipt: give the file that the terminal wrote",
        "该签名用于其他用途，不是回执：请提供终端写出的原文件",
    ),
    "bad_signature": Words(
        "the signed part was changed: do not rely on it, and print the receipt again at the terminal",
        "签名部分已被改动，不可采信：请在终端重新打印回执",
    ),
    "unknown_key": Words(
        "another key signed this: use the public key of the terminal that the receipt names",
        "回执由另一密钥签名：请使用回执所列终端的公钥",
    ),
    "page_changed": Words(
        "the page is not what was signed: do not rely on it, and print the receipt again at the terminal. Only the"
        " ends of lines may differ",
        "页面与签名内容不一致，不可采信：请在终端重新打印回执。仅允许行尾空白不同",
    ),
    "other_format": Words(
        "the signature holds, but this receipt is of another version: check it with the version that it names",
        "签名有效，但回执属于另一版本：请用回执所列版本核对",
    ),
}
"""`EnvelopeRefused.reason` of receipts.py."""
