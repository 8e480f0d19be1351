"""This file knows what `tillwire config` says of pushes, in English and Chinese.

Why something was refused, waits or was rolled back the agent says in English, with names in it; in Chinese the
sentence of its reason stands before that.
"""

from agent.cli.options import Language
from agent.crypto.phrases import Words

TEXTS = {
    "groups": Words("groups {names}", "所属组：{names}"),
    "in_force": Words("in force", "当前生效"),
    "own_file": Words("the terminal's own file {file}", "本机配置文件 {file}"),
    "pushed": Words(
        "version {version}{id}, pushed by the centre; the local tables are those of {file}",
        "版本{version}{id}，由中心推送；本地表仍取自 {file}",
    ),
    "see_diff": Words("what it changes in the terminal's own file", "查看与本机配置文件的差异"),
    "see_pending": Words("what it changes", "查看它的改动"),
    "file_changed": Words(
        "{file} is not what the agent began with: it counts from the next start of the agent; first check it",
        "{file} 在终端代理启动后已被改动：下次启动终端代理时才生效，请先检查",
    ),
    "file_digest": Words("own file", "本机文件"),
    "digest": Words("SHA-256", "SHA-256"),
    "not_taken": Words(
        "no push is taken here: {file} has no [push] table; nothing to do unless the centre is to push",
        "本机不接收推送：{file} 没有 [push] 表；如中心无需推送，则不必处理",
    ),
    "pending": Words("being tried", "试运行"),
    "tried": Words(
        "version {version}{id}: {left} s left; without all that is awaited it goes back by itself",
        "版本{version}{id}：剩余{left}秒；等待项未全部到齐将自动回退",
    ),
    "silent": Words(
        "waits for {devices}: see whether they are switched on and connected",
        "等待设备：{devices}，请检查是否通电、接好",
    ),
    "await_broker": Words(
        "all devices have answered; waits for the broker to acknowledge", "设备均已应答；等待消息服务器确认"
    ),
    "take_back": Words("to take it back at once", "立即回退"),
    "nothing_pending": Words("nothing is being tried, and nothing waits", "没有试运行或等待中的推送"),
    "waiting": Words("waits", "等待中"),
    "signers_wait": Words("a new set of signers, version {version}{id}", "新的签名人名单，版本{version}{id}"),
    "version": Words("version {version}{id}", "版本{version}{id}"),
    "not_fit": Words(
        "it does not fit here, and will be refused: {why}; tell the centre",
        "与本机不符，将被拒绝：{why}；请告知中心",
    ),
    "last": Words("last push", "最近推送"),
    "none_yet": Words("none was decided here yet", "尚无记录"),
    "freeze": Words("frozen", "已冻结"),
    "frozen": Words("no push is taken until {until}; {by} said so", "{until} 之前不接收推送（{by} 设置）"),
    "to_thaw": Words("to end it now", "立即解除"),
    "not_frozen": Words("no: pushes are taken", "否：正常接收推送"),
    "trust": Words("may sign", "可签名者"),
    "own_signers": Words("from the terminal's own file of signers", "取自本机签名人文件"),
    "pushed_signers": Words("pushed, version {version}", "由中心推送，版本{version}"),
    "nobody": Words("nobody: no push is taken", "无：不接收任何推送"),
    "revoked": Words("{number} keys are revoked", "已吊销{number}把密钥"),
    "trouble": Words("trouble", "异常"),
    "well": Words("all is well", "一切正常"),
    "not_yet_known": Words(
        "a push is being tried: nothing is to be done, it ends by itself", "推送试运行中：不必处理，将自行结束"
    ),
    "not_well": Words("somebody has to look: {what}", "需要处理：{what}"),
    "look_ledger": Words("what the ledger says of it", "查看台账记录"),
    "tell_centre": Words(
        "tell the centre: only it can have another version signed", "请告知中心：只有中心能重新签发版本"
    ),
    "history": Words("everything that was decided here", "查看全部记录"),
    "same": Words("no difference", "无差异"),
    "diff_own": Words("own file", "本机文件"),
    "diff_in_force": Words("in force", "当前生效"),
    "diff_pending": Words("pending", "待生效"),
    "diff_then": Words("then", "回退后"),
    "diff_now": Words("now", "当前"),
    "where": Words("key", "配置项"),
    "outcome": Words("outcome", "结果"),
    "reason": Words("reason", "原因"),
    "when": Words("when", "时间"),
    "what": Words("version", "版本"),
    "signers": Words("signers", "签名人名单"),
    "no_history": Words("nothing was decided here yet", "尚无记录"),
    "froze": Words("no push is taken until {until}; the centre sees it", "{until} 之前不接收推送；中心可见此状态"),
    "thawed": Words(
        "pushes are taken again; what waited is looked at now", "已恢复接收推送；等待中的推送将重新检查"
    ),
    "look": Words("see how pushes stand", "查看推送状态"),
    "will_count": Words("version {gone} is taken back; then counts {then}", "将回退版本{gone}；之后生效的是{then}"),
    "then_version": Words("version {version}", "版本{version}"),
    "then_own": Words("the terminal's own file", "本机配置文件"),
    "ask_rollback": Words("Take version {gone} back?", "确定回退版本{gone}吗？"),
    "no_answer": Words(
        "nothing was changed: there was no answer; --force does it without asking",
        "未做任何改动：没有得到回答；--force 可不经询问执行",
    ),
    "not_changed": Words("nothing was changed", "未做任何改动"),
    "rolled_back": Words("version {gone} was taken back; {then} counts", "版本{gone}已回退；当前生效的是{then}"),
    "never_again": Words(
        "it will not be taken again; the centre must sign a greater version",
        "该版本不会再被接收；中心须签发更高版本",
    ),
    "nothing_pushed": Words(
        "nothing that was pushed is in force: the terminal's own file counts, and to change that edit it and"
        " restart the agent",
        "当前没有生效的推送：生效的是本机配置文件；如需更改，请编辑该文件并重启终端代理",
    ),
}

OUTCOMES = {
    "committed": Words("committed", "已生效"),
    "rolled_back": Words("rolled back", "已回退"),
    "refused": Words("refused", "已拒绝"),
}

REASONS = {
    "too_large": "签名文件超过允许的大小：请发送方给出更小的文件",
    "wrong_type": "签名文件用于其他用途：请给出对应的文件",
    "unsigned": "没有签名：请发送方提供已签名的文件",
    "bad_signature": "签名不成立，内容在途中被改动：请发送方提供原文件",
    "revoked_key": "签名所用密钥已吊销：请重新签名，并查明谁使用了该密钥",
    "same_signer": "同一人签了两次：须由不同人员签名",
    "unknown_key": "签名密钥不为本机所知：请查明由谁、用哪把密钥签名",
    "too_few": "签名人数不足：请补签",
    "wrong_role": "签名人不具备所需角色：请由有权人员签名",
    "not_valid": "签名的内容在本机不可用：请更正并以更高版本重新签名",
    "wrong_target": "该推送属于其他终端、组或机构：请与 [terminal] 核对",
    "older": "本机已有更新的版本：请以更高版本重新签名",
    "same_version": "该版本号已用于其他内容：请以更高版本重新签名",
    "expired": "已过有效期：请以更晚的截止时间重新签名",
    "not_yet": "尚未到生效时间：不必处理，到时自动检查",
    "clock_suspect": "本机时钟不可信：请校准时钟，随后自动检查",
    "frozen": "技术员已冻结推送：解冻后自动检查",
    "busy": "密钥操作或另一推送正在进行，或设备尚未应答：不必处理，稍后自动检查",
    "silent": "有设备未应答：请检查推送中的端口与类型",
    "unreachable": "消息服务器未确认：请检查推送中的地址、证书与权限",
    "deaf": "消息服务器不允许接收推送：请更正其访问列表",
    "not_applied": "新配置无法启用",
    "not_stored": "磁盘无法写入：请检查磁盘空间与权限",
    "interrupted": "过程被中断（断电、崩溃或重启），已恢复原配置",
    "damaged": "文件已损坏：请检查磁盘",
    "technician": "由现场人员回退",
}
"""Reason -> its sentence in Chinese; the agent's own sentence is English."""

NEXT = {
    "frozen": "tillwire config thaw",
    "clock_suspect": "timedatectl",
}
"""Reason why something waits -> what is typed about it at the terminal; of others there is nothing to do."""


def said(word: str, lang: Language, **facts: object) -> str:
    """One of TEXTS in a language, with its braces filled in."""
    words = TEXTS[word].filled(**facts)
    return words.zh if lang == "zh" else words.en


def outcome(word: str, lang: Language) -> str:
    """How a push ended; a word of a newer agent as it is."""
    words = OUTCOMES.get(word)
    return (words.zh if lang == "zh" else words.en) if words else word.replace("_", " ")


def why(reason: str, sentence: str, lang: Language) -> str:
    """Why, as a sentence."""
    if lang == "zh" and reason in REASONS:
        return f"{REASONS[reason]}\n{sentence}".rstrip()
    return sentence or reason.replace("_", " ")
