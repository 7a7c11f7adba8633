"""Which routing keys a topic pattern selects."""


def matches_topic(pattern: str, topic: str) -> bool:
    """AMQP rules: words are parted by dots, `*` stands for one word, `#` for any number."""
    if pattern in ("#", topic):
        return True
    return _matches(pattern.split("."), topic.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_matches(rest, words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _matches(rest, words[1:])
