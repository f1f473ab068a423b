"""Why the two controllers answer differently, by step. A difference at any other step is a failure."""

FRESH = "LMCache asks for a full sync after every start of its own, which freezes the engine; kvctrld only after a loss"
MEMORY = "LMCache keeps nothing on disk and knows only what engines tell it again; kvctrld's state survives"
ADDRESS = "LMCache keeps the old address when a worker registers again; kvctrld takes the new one"
WORDS = "LMCache hides the worker's words behind a 500 of its own; kvctrld passes them on with a 502"

REASONS = {
    "start-sync": FRESH,
    "copy-lookup": "LMCache names only the holder that registered first; kvctrld names every holder",
    "check-finish": "LMCache stores no events, its check_finish always fails; kvctrld remembers each command",
    "copy-confirmed": "LMCache stores no events, and never asks whether a move's destination has the chunks",
    "move-disk": WORDS,
    "compress": WORDS,
    "decompress": WORDS,
    "decompress-plain": WORDS,
    "dead-peer": WORDS,
    "clear-unknown": "LMCache answers every failure with 500 and a text about ranks; kvctrld names the instance, with 404",
    "controller-kill": MEMORY,
    "controller-kill-sync": FRESH,
    "engine-restart-address": ADDRESS,
    "engine-restart-move": ADDRESS + ", so only kvctrld's move reaches the new process",
    "engine-restart-health": ADDRESS + ", and LMCache waits for ever",
    "engine-restart-clear": ADDRESS + ", and LMCache's socket to it is stuck since the health before",
    "end-sync": FRESH,
}
