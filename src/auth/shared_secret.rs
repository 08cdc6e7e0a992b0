//! TURN REST credentials (draft-uberti-behave-turn-rest).
