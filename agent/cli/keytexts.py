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
    "withdrawn": Words("nobody waits for the key of {order} any more", "已撤回{order}的密钥申请"),
}

COMMANDS = {
    "idle": "tillwire keys order FILE",
    "opened": "tillwire keys begin",
    "part": "tillwire keys part",
    "block": "tillwire keys part --block FILE",
    "confirm": "tillwire keys complete",
    "verified": "tillwire keys complete",
    "destroy": "tillwire keys destroy",
    "receipt": "tillwire keys receipt",
    "closed": "tillwire keys receipt",
    "aborted": "tillwire keys receipt",
}
"""State of a ceremony -> what is typed for its next step; in the others people wait, or look around."""
LOOK = "tillwire keys status"


def said(word: str, lang: Language, **facts: object) -> str:
    """One of TEXTS in a language, with its braces filled in."""
    words = TEXTS[word].filled(**facts)
    return words.zh if lang == "zh" else words.en


def command(state: str) -> str:
    """What is typed for the next step of a ceremony in this state."""
    return COMMANDS.get(state, LOOK)
