//! What the tests and the scripts measure and break things with. Never shipped.
