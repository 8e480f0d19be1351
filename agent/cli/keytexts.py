"""This file knows what the commands about keys and people say by themselves, in English and Chinese.

The steps, refusals and causes of a ceremony come from the agent; agent/crypto/phrases.py has those.
"""

from agent.cli.options import Language
from agent.crypto.phrases import Words

TEXTS = {
    "next": Words("next", "下一步"),
    "name": Words("Your name:", "您的姓名："),
    "password": Words("Password of {name}:", "{name}的密码："),
    "first_password": Words(
        "First password for {name}, 10 characters or more:", "为{name}设定初始密码（至少10个字符）："
    ),
    "new_password": Words("New password of {name}, 10 characters or more:", "{name}的新密码（至少10个字符）："),
    "once_more": Words("The same once more:", "请再输入一次："),
    "differ": Words("the two are not the same: both again, please", "两次输入不一致，请重新输入"),
    "one_of": Words("please answer with one of: {answers}", "请回答以下之一：{answers}"),
    "not_here": Words(
        "not at this keyboard: a component is typed at the EPP's own keypad only",
        "请勿在此键盘输入：分量只能在密码键盘上录入",
    ),
    "left": Words(
        "this command has ended. A ceremony that is running goes on: `tillwire keys status` tells the next step,"
        " and `tillwire keys abort` stops it",
        "本命令已结束。正在进行的密钥操作仍在继续：tillwire keys status 显示下一步，tillwire keys abort 可中止",
    ),
    "component": Words("component", "分量"),
    "envelope": Words(
        "envelope {envelope}, check value {kcv}, group {group}", "信封{envelope}，校验值{kcv}，保管组{group}"
    ),
    "valid": Words("valid", "有效期"),
    "from_to": Words("{begin} to {end}", "{begin}至{end}"),
    "signed_by": Words("signed by", "签发人"),
    "came_before": Words("it came before; nothing was changed", "该指令此前已提交；未作任何更改"),
    "waiting": Words("the agent is at work: {seconds} s", "终端代理处理中：{seconds}秒"),
    "accepted": Words(
        'Did the host accept the key? "no" deletes it; "later" leaves it for another `tillwire keys complete`.',
        "主机是否接受该密钥？no：将删除密钥；later：稍后再运行 tillwire keys complete",
    ),
    "method": Words("How did the host show it?", "主机以何种方式确认？"),
    "reference": Words(
        "Reference number of that in the host's log (the last 10 digits when it is longer):",
        "主机日志中的参考号（超过10位时只填最后10位）：",
    ),
    "plain_reference": Words("letters, digits, '.', '-' and '_' only, please", "只能使用字母、数字、“.”、“-”和“_”"),
    "who_says": Words("Whoever says so logs in once more.", "请作出确认的人员再次登录。"),
    "papers": Words("Of the order {order} must be destroyed: {papers}", "指令{order}须销毁：{papers}"),
    "no_papers": Words("no paper; every file with its key", "无纸质分量；所有含该密钥的文件"),
    "block_file": Words("every copy of the file with its key block", "密钥块文件的所有副本"),
    "envelopes": Words("the papers of the envelopes {envelopes}", "信封{envelopes}的纸质分量"),
    "destroyed": Words(
        "Are they destroyed, before your own eyes and those of the other person?", "是否已在您和另一人面前销毁？"
    ),
    "not_signed": Words(
        "nothing was signed: destroy them first, then `tillwire keys destroy`",
        "未签名：请先销毁，再运行 tillwire keys destroy",
    ),
    "change_first": Words("{name} changes the first password", "{name}须修改初始密码"),
    "may_begin": Words("{name} may log in to a ceremony", "{name}可登录参与密钥操作"),
    "look": Words("look who is there", "查看现有人员"),
    "look_keys": Words("see how the keys stand", "查看密钥状态"),
    "first_account": Words("add the people: two groups, and two roles", "添加人员：须有两个保管组、两种角色"),
    "receipt_holds": Words(
        "the receipt holds: it was signed with this key, and nothing was changed",
        "回执有效：由该密钥签名，未被改动",
    ),
    "compare_key": Words(
        "compare its ledger place with the ledger: row {seq}", "请将回执所载台账位置与台账核对：第{seq}行"
    ),
    "kept": Words("the receipt is in {file}", "回执已写入{file}"),
    "wait_look": Words("the slots are compared now: look in a minute", "正在比对密钥槽：请一分钟后查看"),
    "applied": Words(
        "when the key for {order} has come, hand its order over", "{order}的密钥送达后，请提交密钥指令"
    ),
    "page_alone": Words(
        "this is the page alone: --to FILE writes it with its signature, by which it can be checked",
        "以上仅为页面：加 --to 文件名 可连同签名一并写入，凭签名方可核验",
    ),
    "no_terminal": Words(
        "there is no terminal to type at: run this by hand, in a terminal of your own",
        "没有可供输入的终端：请在您自己的终端中手动运行",
    ),
    "too_long": Words(
        "an answer has at most {longest} characters: nothing was sent", "回答至多{longest}个字符：未发送任何内容"
    ),
    "too_late": Words(
        "nobody answered for too long: nothing was sent, run the command again",
        "长时间无人回答：未发送任何内容，请重新运行本命令",
    ),
    "terminal_closed": Words("the terminal was closed: nothing was sent", "终端已关闭：未发送任何内容"),
    "epp": Words("EPP", "密码键盘"),
    "serial": Words("{epp}, serial number {serial}", "{epp}，序列号{serial}"),
    "no_serial": Words("UNKNOWN", "不明"),
    "simulator": Words("SIMULATOR: test keys only", "模拟器：仅限测试密钥"),
    "service": Words("service", "服务"),
    "secrets": Words("secrets", "终端私钥"),
    "sealed": Words("sealed at level {level}, generation {generation}", "封存级别{level}，第{generation}代"),
    "not_open": Words("{why}", "不可用：{why}"),
    "no_ceremony": Words("no ceremony is running ({state})", "当前没有密钥操作（{state}）"),
    "ceremony": Words("ceremony", "密钥操作"),
    "of_key": Words("{id}: {kind} slot {slot}, check value {kcv}", "{id}：{kind}，密钥槽{slot}，校验值{kcv}"),
    "of_parts": Words("{part} of {parts}", "第{part}个，共{parts}个"),
    "person": Words("person", "人员"),
    "in_group": Words("{person}, {role}, group {group}", "{person}，{role}，保管组{group}"),
    "not_ordered": Words("not as ordered", "不符合要求"),
    "not_looked_at": Words("not looked at", "未查看"),
    "critical": Words("CRITICAL {what}", "严重：{what}"),
    "late": Words("{by}  LATE", "{by}  已逾期"),
    "slot": Words("slot", "密钥槽"),
    "ledger": Words("ledger", "台账"),
    "kcv": Words("check value", "校验值"),
    "usage": Words("usage", "用途"),
    "version": Words("version", "版本"),
    "since": Words("since", "起始时间"),
    "order_received": Words("order received", "已收指令"),
    "kind": Words("kind", "类别"),
    "received": Words("received", "收到时间"),
    "done_by": Words("to be done by", "完成期限"),
    "order_ended": Words("order ended", "已结束指令"),
    "how": Words("how", "结果"),
    "when": Words("when", "时间"),
    "who": Words("name", "姓名"),
    "role": Words("role", "角色"),
    "group": Words("group", "保管组"),
    "account_locked": Words("locked until {until}", "锁定至{until}"),
    "account_fresh": Words("must change the first password", "须修改初始密码"),
    "no_accounts": Words("there are no accounts", "尚无账户"),
    "root_only": Words("only root can make a credential: run this with sudo", "只有root可以生成凭据：请用sudo运行"),
    "sealed_before": Words(
        "{file} is there: the agent has made its secrets already and would not take another credential. Nothing was"
        " made; docs/keys.md tells how an agent begins anew",
        "{file}已存在：终端代理已生成其私密数据，不会采用新的凭据。未生成任何文件；如何重新开始见docs/keys.md",
    ),
    "credential": Words("{file} is made, bound to {bound}", "已生成{file}，绑定于{bound}"),
    "in_unit": Words(
        "put this line below [Service] of the agent's unit, before its first start",
        "在终端代理首次启动前，将此行加入其单元文件的[Service]段",
    ),
    "withdrawn": Words("nobody waits for the key of {order} any more", "已撤回{order}的密钥申请"),
}

STATES = {
    "resuming": "正在恢复",
    "idle": "空闲",
    "opened": "指令已开启",
    "crewed": "人员到齐",
    "looking": "查询密钥槽",
    "clearing": "清空密钥槽",
    "part": "等待分量",
    "entering": "录入分量",
    "block": "等待密钥块",
    "confirm": "等待第二人确认",
    "loading": "正在装载",
    "verified": "等待主机验证",
    "active": "密钥可用",
    "erasing": "正在删除",
    "destroy": "等待销毁签名",
    "receipt": "等待打印回执",
    "closed": "已完成",
    "aborting": "正在中止",
    "aborted": "已中止",
}
"""The states of a ceremony in Chinese; in English they are the words themselves."""
WORDS = {
    "ok": "正常",
    "ceremony": "密钥操作中",
    "stopped": "停止服务",
    "unknown": "不明",
    "loaded": "已装载",
    "missing": "无密钥",
    "construct": "未完成",
    "load": "装载",
    "compromise": "替换可疑密钥",
    "destroy": "销毁",
    "components": "分量",
    "block": "密钥块",
    "test": "测试",
    "production": "生产",
    "technician": "技术员",
    "key-manager": "密钥管理员",
    "auditor": "审计员",
    "operator": "操作员",
    "tpm2": "TPM 2.0",
    "credential": "systemd凭据",
    "file": "文件",
}
"""Likewise, what else the agent has a word for: services, slots, orders, roles, levels."""

COMMANDS = {
    "idle": "tillwire keys order FILE",
    "opened": "tillwire keys begin",
    "part": "tillwire keys part",
    "block": "tillwire keys part --block FILE",
    "confirm": "tillwire keys complete",
    "verified": "tillwire keys complete",
    "destroy": "tillwire keys destroy",
    "receipt": "tillwire keys receipt",
    "closed": "tillwire keys receipt --check FILE --key PEM",
    "aborted": "tillwire keys receipt",
}
"""State of a ceremony -> what is typed for its next step; in the others people wait, or look around."""
LOOK = "tillwire keys status"


def said(word: str, lang: Language, **facts: object) -> str:
    """One of TEXTS in a language, with its braces filled in."""
    words = TEXTS[word].filled(**facts)
    return words.zh if lang == "zh" else words.en


def state(word: str, lang: Language) -> str:
    """A state of a ceremony in a language."""
    return STATES.get(word, word) if lang == "zh" else word


def worded(word: str, lang: Language) -> str:
    """Another word of the agent's in a language."""
    return WORDS.get(word, word) if lang == "zh" else word


def command(state: str) -> str:
    """What is typed for the next step of a ceremony in this state."""
    return COMMANDS.get(state, LOOK)
