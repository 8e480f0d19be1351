"""What a PIN pad says in packets with separators in them: they are in no reading."""

from agent.drivers.ipp import packet
from agent.drivers.pin_pad import PinPad, PinPadOptions
from agent.model import Operation, Outcome, Reading
from tests.test_pin_pad import ACK, EOT, TO_WIRE, asked


def test_a_control_character_of_a_reply_is_in_no_reading() -> None:
    driver, said = PinPad(PinPadOptions(slots=(0, 1))), list[Reading | Outcome]()
    replies = {
        packet("040"): packet("04F\x1aA\x1cNN001"),
        packet("041"): packet("04\x1a"),
        packet("06"): packet("06\x1c246880401A\x1a001234"),
        packet("M04"): packet("M04200-123-456\x1c"),
        packet("0103"): packet("145A\x1a\x1c"),
    }
    driver.perform(Operation("op", "pad1", "self_test", "someone", {"test": 3}), 1000.0)
    for sent, now in asked(driver):
        for question, reply in replies.items():
            if question in sent:
                said += driver.receive(ACK + reply.translate(TO_WIRE) + EOT, now)
        if now > 1010.0:
            break
    told = {item.point: item for item in said if isinstance(item, Reading)}
    wanted = {
        "key.0.usage": "AN",
        "key.1.state": "vendor.none",
        "device.serial": "246880401A001234",
        "device.unit_serial": "200-123-456",
    }
    assert {point: told[point].value for point in wanted} == wanted
    [outcome] = [item for item in said if isinstance(item, Outcome)]
    texts = [outcome.detail, outcome.raw, *(str(item.value) + item.raw for item in told.values())]
    assert all(text.isprintable() for text in texts)
