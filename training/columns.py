"""Names of columns, here and in the lake."""


class Column:
    """Names of columns, here and in the lake."""

    EVENT = "event_id"
    TYPE = "type"
    USER = "user_id"
    ITEM = "item_id"
    OCCURRED = "occurred_at"
    RECEIPT = "receipt"
    PARTITION = "partition"
    OFFSET = "offset"
    ATTRIBUTES = "attributes"
    HIDDEN = "hidden"
    AT_MS = "at_ms"
    WEIGHT = "weight"
    USER_INDEX = "user_index"
    ITEM_INDEX = "item_index"
