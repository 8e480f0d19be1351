"""This file knows the sentences of key ceremonies, in English and Chinese; the words before them are for machines.

Braces stand for public facts only: numbers, slots, envelopes, words of a device. No sentence repeats what was
typed.
"""

from typing import NamedTuple


class Words(NamedTuple):
    """One sentence in both languages."""

    en: str
    zh: str

    def filled(self, **facts: object) -> "Words":
        """With its braces filled in."""
        return Words(self.en.format(**facts), self.zh.format(**facts))


REFUSALS = {
    "malformed": Words(
        "the order is not written as this version expects: have it made again in the key room",
        "密钥指令的格式不符合本版本要求：请密钥室重新制作",
    ),
    "long_name": Words(
        "an id, slot or group in the order is too long: at most 10 hex digits in a row, 32 letters for a slot",
        "指令中的编号、密钥槽或组别过长：连续十六进制数字至多10位，槽名至多32个字符",
    ),
    "wrong_usage": Words(
        "the order's usage, mode and exportability do not fit each other",
        "密钥指令中的用途、使用方式与可导出性不相符",
    ),
    "wrong_length": Words("the order's key length does not fit its algorithm", "密钥指令中的密钥长度与算法不符"),
    "aes": Words(
        "the order is for an AES key: this version loads only DES and 3DES keys into an EPP",
        "密钥指令要求装载AES密钥：本版本只能向密码键盘装载DES和3DES密钥",
    ),
    "single_des": Words(
        "single-length DES is only for a MAC key, and only by a signed exception",
        "单倍长DES只可用于MAC密钥，且须有签名的例外许可",
    ),
    "part_count": Words("a key has two or three components", "密钥应由两个或三个分量组成"),
    "same_part_twice": Words(
        "an envelope or a check value stands twice in the order: equal components cancel out",
        "密钥指令中信封或校验值重复：相同分量会互相抵消",
    ),
    "one_group": Words("two components are for the same group of people", "两个分量分给了同一保管组"),
    "naked": Words(
        "a bare cryptogram needs a signed exception: ask for a key block", "裸密文须有签名的例外许可：请改用密钥块"
    ),
    "suspected_kek": Words(
        "the protection key is itself suspected or replaced: it must not carry the new key",
        "保护密钥本身可疑或即将被替换，不得用于传送新密钥",
    ),
    "too_long": Words("the order is valid for more than 31 days", "密钥指令有效期超过31天"),
    "same_id": Words(
        "another order came under this id before: have this one signed anew with another id",
        "此编号已用于另一份指令：请更换编号并重新签名",
    ),
    "signer_gone": Words(
        "it is signed with a key that does not count here any more: have the order signed anew",
        "指令所用的签名密钥已不再有效：请重新签名",
    ),
    "too_few_signers": Words("two different people must sign an order", "密钥指令须由两名不同人员签名"),
    "wrong_target": Words(
        "the order is for another terminal or another EPP: compare its serial number",
        "密钥指令属于另一台终端或密码键盘：请核对序列号",
    ),
    "wrong_hierarchy": Words(
        "test orders are for the simulator, production orders for real devices",
        "测试指令只用于模拟器，生产指令只用于真实设备",
    ),
    "clock_went_back": Words(
        "the clock went back: no order is accepted until it is right again",
        "时钟发生回拨：校正前不接受任何密钥指令",
    ),
    "expired": Words("the order has expired", "密钥指令已过期"),
    "too_early": Words("the order is not valid yet", "密钥指令尚未生效"),
    "used_before": Words(
        "the order was used before; an order is used once", "密钥指令已使用过；每份指令只能使用一次"
    ),
    "envelope_used": Words("an envelope of the order was opened or spoiled before", "指令中的信封曾被开启或已作废"),
    "older": Words("the slot has held this key version or a newer one", "该密钥槽曾装载过同一或更新版本的密钥"),
    "destroyed_before": Words("a key with this check value was destroyed here", "具有此校验值的密钥曾在此销毁"),
    "test_key": Words(
        "the check value is that of a published or degenerate key", "该校验值属于公开测试密钥或退化密钥"
    ),
    "keys_below": Words(
        "a key below a suspected one is missing from the order: all of them must go",
        "指令遗漏了可疑密钥之下的密钥：须全部更换",
    ),
    "no_kek": Words("the ledger knows no key in the slot of the protection key", "台账中没有保护密钥槽的密钥记录"),
    "weak_wrapping": Words("the key is stronger than the key that protects it", "密钥强度高于保护它的密钥"),
    "not_now": Words("that is not the next step", "现在不是进行此步骤的时候"),
    "malformed_login": Words(
        "a login names its person, group and session in plain short words", "登录信息中的姓名、组别或会话格式不正确"
    ),
    "wrong_terminal": Words("this login was made at another terminal", "该登录来自另一台终端"),
    "login_reused": Words("log in again: each step needs a login of its own", "请重新登录：每个步骤都须单独登录"),
    "session_of_other": Words(
        "log in from a session of your own, not from your colleague's", "请使用自己的会话登录"
    ),
    "locked": Words("too many wrong tries: this person is locked for today", "错误次数过多：此人今日已被锁定"),
    "same_person": Words("this person has joined already: a second person is needed", "此人已加入：须由另一人加入"),
    "same_credential": Words("each person needs a credential of their own", "每人须使用自己的凭证"),
    "same_group": Words("the people must be of different groups", "参与人员须属于不同保管组"),
    "wrong_group": Words("this envelope is for another group", "此信封属于另一保管组"),
    "role_missing": Words(
        "one key manager and one technician must be among the people", "人员中须有一名密钥管理员和一名技术员"
    ),
    "not_crew": Words("this person is not part of this ceremony", "此人不是本次密钥操作的参与者"),
    "changed": Words("the login does not fit the person who joined", "登录信息与已加入人员不符"),
    "holds_too_much": Words(
        "this person has seen another component of this key", "此人接触过该密钥的另一分量，不得再接触本分量"
    ),
    "not_second": Words("the second person must confirm, not the one who opened", "须由第二人确认，开启者不得确认"),
    "signed_before": Words("this person has signed already", "此人已签名"),
    "wrong_statement": Words("the signature is for other envelopes", "签名所列信封不符"),
    "other_block": Words("this is not the block that the order names", "这不是指令所指定的密钥块"),
    "block_refused": Words("the block's header does not fit the order", "密钥块头与指令不符"),
    "not_ready": Words(
        "switch to maintenance, stop the service to customers, close or open the doors as ordered",
        "请切换到维护模式、停止客户服务，并按要求处置机柜门",
    ),
    "busy": Words("another ceremony is running here: it was stopped", "此处正在进行另一次密钥操作：该操作已中止"),
}

CAUSES = {
    "part_time": Words("a component took longer than 5 minutes", "单个分量录入超过5分钟"),
    "ceremony_time": Words("the ceremony took longer than 30 minutes", "密钥操作超过30分钟"),
    "idle": Words("no key was pressed for 60 seconds", "60秒内没有按键"),
    "no_answer": Words("the device did not answer", "设备无应答"),
    "wrong_part": Words("three wrong tries at one component", "同一分量三次录入错误"),
    "wrong_key": Words("the key's check value is not that of the order", "密钥校验值与指令不符"),
    "device_refused": Words("the device refused: {raw}", "设备拒绝：{raw}"),
    "proof_failed": Words("the host did not accept the key", "主机未接受该密钥"),
    "mode_changed": Words("the switch, the service or a door changed", "操作开关、服务状态或机柜门发生变化"),
    "device_lost": Words("the connection to the device was lost", "与设备的连接中断"),
    "tamper": Words("the device reports tampering", "设备报告被拆动"),
    "serial_changed": Words("the device has another serial number now", "设备序列号已改变"),
    "agent_restarted": Words("the agent was started again", "终端代理已重新启动"),
    "agent_stopped": Words("the agent was stopped", "终端代理已停止"),
    "second_session": Words("a second ceremony was opened", "有人开启了第二次密钥操作"),
    "abandoned": Words("a person stopped it", "操作人员中止"),
    "exposed": Words("a component was typed outside the EPP's keypad", "有人在密码键盘以外输入了分量"),
    "locked_out": Words("a person had too many wrong logins", "参与人员登录错误次数过多"),
    "unexpected_key": Words("the slot held a key that no order explains", "密钥槽内有无指令依据的密钥"),
    "left_construct": Words("the slot held a half-built key", "密钥槽内有未完成的密钥"),
    "slot_empty": Words("the slot holds no key to destroy", "密钥槽内没有可销毁的密钥"),
    "wrong_usage": Words("the device gave the key another usage", "设备赋予密钥的用途与指令不符"),
}

STEPS = {
    "idle": Words("open a signed order", "请载入已签名的密钥指令"),
    "resuming": Words(
        "wait: the last ceremony was cut short; as soon as the EPP answers, its slot is deleted",
        "请等待：上次密钥操作中断；密码键盘应答后即删除该槽",
    ),
    "waiting": Words("the order {order} waits: the first person logs in", "指令{order}待执行：请第一人登录"),
    "opened": Words("log in; people who are still missing: {missing}", "请登录，还缺{missing}人"),
    "crewed": REFUSALS["not_ready"],
    "looking": Words("wait: the EPP is asked about slot {slot}", "请等待：正在查询密码键盘的{slot}槽"),
    "clearing": Words(
        "wait: the EPP is deleting an old key, or what was built of the new one",
        "请等待：正在删除旧密钥或未完成的新密钥",
    ),
    "part": Words(
        "component {number} of {of}: the holder of envelope {envelope} logs in, the others look away",
        "第{number}/{of}个分量：请信封{envelope}的保管人登录，其他人回避",
    ),
    "entering": Words(
        "type component {number} at the EPP's own keypad, {digits} digits; nowhere else",
        "请只在密码键盘上录入第{number}个分量，共{digits}位",
    ),
    "block": Words("hand over the key block of this order", "请提供本指令的密钥块"),
    "confirm": Words("the second person logs in and confirms", "请第二人登录并确认"),
    "loading": Words("wait: the EPP is completing the key", "请等待：密码键盘正在完成密钥"),
    "verified": Words(
        "the check value {kcv} is right: sign on to the host to prove the key",
        "校验值{kcv}正确：请向主机签到以验证密钥",
    ),
    "active": Words("the key works; wait: the old key is being deleted", "密钥可用；请等待：正在删除旧密钥"),
    "erasing": Words("wait: the key is being deleted", "请等待：正在删除密钥"),
    "destroy": Words(
        "shred the papers, delete the files; then two people sign. Signed: {signed}",
        "请粉碎纸质分量、删除文件，然后两人签名。已签：{signed}",
    ),
    "receipt": Words("print the receipt", "请打印回执"),
    "closed": Words(
        "done: keep the receipt; whoever has this terminal's public key can check it",
        "全部完成：请保存回执；凭本终端公钥即可核验",
    ),
    "aborting": Words(
        "stopped: {cause}. Slot {slot} is being deleted; the terminal stays out of service until the EPP says so",
        "已中止：{cause}。正在删除{slot}槽；密码键盘确认前终端停止服务",
    ),
    "aborted": Words(
        "stopped: {cause}. The order is used up: destroy opened envelopes and ask for a new order",
        "已中止：{cause}。指令已作废：请销毁已开启的信封并申请新指令",
    ),
    "again": Words(
        "the entry was wrong ({tries} of 3): the slot is being deleted and all components are typed again",
        "录入错误（第{tries}次，共3次）：正在删除密钥槽，须重新录入全部分量",
    ),
}

LACKING = {
    "unknown": Words("{point} is unknown and must be {word}", "{point}状态不明，须为{word}"),
    "other": Words("{point} is {value} and must be {word}", "{point}现为{value}，须为{word}"),
}
"""Conditions of a ceremony that are not as they must be."""

SERVICE = {
    "well": Words("", ""),
    "ceremony": Words(
        "a key ceremony is under way, or its slot is not deleted yet", "密钥操作正在进行，或其密钥槽尚未删除"
    ),
    "silent": Words(
        "the EPP does not answer, so nobody knows whether its keys are there",
        "密码键盘无应答，无法确认其中的密钥",
    ),
    "unseen": Words(
        "the slots of the EPP were not looked at yet, since the start or since it has changed",
        "启动或密码键盘变化后尚未查看其密钥槽",
    ),
    "distrusted": Words(
        "what the store tells of keys cannot be believed ({error}): keep a copy of its folder as evidence, and ask"
        " who is responsible for keys",
        "存储中的密钥记录不可信（{error}）：请保留其目录的副本作为证据，并询问密钥负责人",
    ),
}
"""Why the keys do not let the terminal serve customers."""

ALARMS = {
    "aborted": Words("a key ceremony was stopped: {cause}", "密钥操作已中止：{cause}"),
    "slot_unknown": Words(
        "slot {slot} may hold part of a key: the EPP has not said that it is deleted",
        "{slot}槽可能残留密钥：密码键盘尚未确认删除",
    ),
    "tamper": Words(
        "the EPP was opened: all slots are unknown; investigate before anything is loaded",
        "密码键盘被拆动：所有密钥槽状态不明；查明之前不得装载",
    ),
    "serial_changed": Words(
        "another EPP is in place: all slots are unknown, and nothing is loaded without a new order",
        "密码键盘已更换：所有密钥槽状态不明，无新指令不得装载",
    ),
    "unexpected_key": Words("slot {slot} holds a key that no order explains", "{slot}槽有无指令依据的密钥"),
    "left_construct": Words("slot {slot} holds a half-built key", "{slot}槽有未完成的密钥"),
    "exposed": Words(
        "a component was typed outside the EPP's keypad: it is spoiled", "有人在密码键盘以外输入了分量：该分量作废"
    ),
    "locked": Words("{person} had five wrong logins and is locked for today", "{person}五次登录错误，今日锁定"),
    "destruction_overdue": Words("papers of a loaded key are not destroyed yet", "已装载密钥的纸质分量尚未销毁"),
    "papers_late": Words(
        "nobody has signed yet, or only one, that the papers of the order {order} are destroyed:"
        " `tillwire keys destroy {order}`",
        "指令{order}的纸质分量销毁尚未由两人签字确认：请运行 tillwire keys destroy {order}",
    ),
    "test_key": Words(
        "slot {slot}: the check value is that of {what}", "{slot}槽：校验值属于公开或退化密钥（{what}）"
    ),
    "wrong_kcv": Words("slot {slot} has another check value than expected", "{slot}槽校验值与预期不符"),
    "same_kcv": Words("slots {slot} and {other} have the same check value", "{slot}槽与{other}槽校验值相同"),
    "destroyed_kcv": Words("slot {slot} shows a key that was destroyed", "{slot}槽出现已销毁的密钥"),
    "missing_key": Words("slot {slot} should hold a key and does not", "{slot}槽应有密钥但为空"),
    "other_usage": Words("slot {slot} is for another usage than ordered", "{slot}槽的用途与指令不符"),
    "unknown_slot": Words("what slot {slot} holds is not known", "{slot}槽状态不明"),
    "weak_wrapping": Words("slot {slot} is protected by a weaker key", "{slot}槽由强度更低的密钥保护"),
    "age_due": Words(
        "the key in slot {slot} must be replaced within {days} days", "{slot}槽密钥须在{days}天内更换"
    ),
    "age_over": Words("the key in slot {slot} is {days} days over its time", "{slot}槽密钥已超期{days}天"),
    "unchanged": Words("slot {slot}: sign-on did not change the working key", "{slot}槽：签到后工作密钥未变化"),
    "received_late": Words("the key was not received within 5 days", "5天内未收到密钥"),
    "installed_late": Words("the key was not installed within 2 days of receipt", "收到密钥后2天内未安装"),
}
