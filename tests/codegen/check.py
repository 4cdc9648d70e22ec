"""check.py -- reads compiler output and says whether the inline barrier is still the one that was proved.

    check.py FILE.s        every store_* and alloc_* function must be right
    check.py --wrong FILE.s   every wrong_* function must be refused, for the reason in its name

The store barrier is sound only in one order: the slot is written, then grey_phase_ is read, and in
between the value is in a register, where an interruption finds it (docs/protocol.md, 2.2).  C can't say
this fully, so the machine code is looked at.  All paths from a function's entry to its exits are
walked; functions here have no loops.
"""
import re
import sys

REGISTERS = {}
for letter in "abcd":
    for form in ("r%sx", "e%sx", "%sx", "%sl", "%sh"):
        REGISTERS[form % letter] = "r%sx" % letter
for name in ("si", "di", "bp", "sp"):
    for form in ("r%s", "e%s", "%s", "%sl"):
        REGISTERS[form % name] = "r" + name
for number in range(8, 16):
    for form in ("r%d", "r%dd", "r%dw", "r%db"):
        REGISTERS[form % number] = "r%d" % number
CALLER_SAVED = {"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"}
WRITES_NOTHING = ("cmp", "test", "push", "nop", "j", "ret", "call", "endbr", "bt")


class Refused(Exception):
    """The reason first, as in the names of wrong.c, then what was seen."""


class Instruction:
    def __init__(self, text):
        self.text = " ".join(text.split())
        prefix = re.match(r"(lock|rep|notrack|bnd)\s+", self.text)
        self.locked = bool(prefix) and prefix.group(1) == "lock"
        body = self.text[prefix.end():] if prefix else self.text
        self.op, _, rest = body.partition(" ")
        self.operands = [o.strip() for o in re.split(r",(?![^()]*\))", rest)] if rest else []

    def target(self):
        return self.operands[-1] if self.operands else ""

    def register(self, operand):
        return REGISTERS.get(operand[1:]) if operand.startswith("%") else None

    def written_register(self):
        if self.op.startswith(WRITES_NOTHING) or not self.operands:
            return None
        return self.register(self.target())

    def memory_operands(self):
        return [o for o in self.operands if "(" in o or (not o.startswith(("%", "$")) and self.op[0] != "j")]


def functions(path):
    """Name -> list of Instruction and of labels (str)."""
    found, current = {}, None
    for line in open(path):
        line = line.split("#")[0].strip() if not line.lstrip().startswith("#") else ""
        if not line:
            continue
        label = re.match(r"([.\w$]+):$", line)
        if label:
            name = label.group(1)
            if not name.startswith("."):
                current = found.setdefault(name, [])
            elif current is not None:
                current.append(name)
        elif line.startswith(".size"):
            current = None
        elif not line.startswith(".") and current is not None:
            current.append(Instruction(line))
    return found


def paths(code):
    """All ways from the entry to an exit, each a list of Instruction."""
    places = {item: i for i, item in enumerate(code) if isinstance(item, str)}
    done, open_paths = [], [(0, [])]
    while open_paths:
        at, path = open_paths.pop()
        while True:
            if at >= len(code):
                raise Refused("unreadable", "control runs off the end")
            item = code[at]
            at += 1
            if isinstance(item, str):
                continue
            path = path + [item]
            if len(path) > 500:
                raise Refused("unreadable", "a loop")
            if item.op.startswith("ret"):
                done.append(path)
                break
            if item.op.startswith("j"):
                inside = places.get(item.target())
                if item.op.startswith("jmp"):
                    if inside is None:
                        done.append(path)
                        break
                    at = inside
                else:
                    open_paths.append((inside, path) if inside is not None else (at, path))
    return done


def leaves(item):
    """A call, or a jump to another function in its place."""
    return item.op.startswith("call") or (item.op.startswith("jmp") and not item.target().startswith("."))


def no_bus_lock(path):
    for item in path:
        if item.locked or (item.op.startswith("xchg") and item.memory_operands()):
            raise Refused("lock", item.text)
        if item.op in ("mfence", "lfence", "sfence"):
            raise Refused("fence", item.text)


def is_slot_store(item):
    if not re.fullmatch(r"movq?", item.op) or len(item.operands) != 2:
        return False
    source, slot = item.operands
    stack = "%rsp" in slot
    return item.register(source) is not None and item.register(slot) is None and not stack


def phase_reads(path):
    """Positions of instructions that read grey_phase_, directly or through its address in a register."""
    address = set()
    for i, item in enumerate(path):
        reads = [o for o in item.memory_operands()]
        direct = any(o.startswith("grey_phase_") and "@GOTPCREL" not in o for o in reads)
        through = any(re.fullmatch(r"\(%(\w+)\)", o) and o[2:-1] in address for o in reads)
        if item.op != "lea" and not item.op.startswith("lea") and (direct or through):
            yield i
        written = item.written_register()
        if written:
            address.discard(written)
            takes = item.op.startswith("lea") and direct
            if takes or any("grey_phase_@GOTPCREL" in o for o in reads):
                address.add(written)


def follow(held, item):
    """The registers that hold the value, after one more instruction."""
    written = item.written_register()
    if leaves(item):
        held -= CALLER_SAVED
    elif written and re.fullmatch(r"movq?", item.op) and item.register(item.operands[0]) in held:
        held.add(written)
    else:
        held.discard(written)


def copies_of(register, before):
    """The registers that hold the same as this one, at the end of these instructions."""
    same = {register}
    for start, item in reversed(list(enumerate(before))):
        if item.written_register() == register or (leaves(item) and register in CALLER_SAVED):
            for later in before[start + 1:]:
                follow(same, later)
            return same
    return same


def check_store_path(path):
    stores = [i for i, item in enumerate(path) if is_slot_store(item)]
    tests = list(phase_reads(path))
    if not tests:
        raise Refused("untested", "a path without a read of grey_phase_: " + "; ".join(i.text for i in path))
    if not stores or stores[0] > tests[0]:
        raise Refused("order", "'%s' comes before the store" % path[tests[0]].text)
    store, test = path[stores[0]], tests[0]
    value = store.register(store.operands[0])
    held = copies_of(value, path[:stores[0]])
    for item in path[stores[0] + 1:test + 1]:
        if leaves(item):
            raise Refused("call", "'%s' between store and test" % item.text)
        follow(held, item)
        if not held:
            raise Refused("value", "'%s' overwrites the value before the test" % item.text)
    return store, path[test], value, stores[0]


def check_store(name, code):
    ways = paths(code)
    for path in ways:
        no_bus_lock(path)
    seen = [check_store_path(path) for path in ways]
    # Fast: nothing is called from the store on.  What stands before it is the caller's own business.
    fast = [p[s[3]:] for p, s in zip(ways, seen) if not any(leaves(i) for i in p[s[3]:])]
    if not fast:
        raise Refused("call", "no path without a call")
    if not any(any("grey_shade_" in i.text for i in p) for p in ways):
        raise Refused("untested", "grey_shade_ is never called")
    store, test, value, _ = seen[0]
    shortest = min(len(p) for p in fast)
    print("  %-16s store '%s', test '%s', value in %%%s, %d instructions" %
          (name, store.text, test.text, value, shortest))


def check_alloc(name, code):
    ways = paths(code)
    for path in ways:
        no_bus_lock(path)
    fast = [p for p in ways if not any(leaves(i) for i in p) and any(is_slot_store(i) for i in p)]
    if not fast:
        raise Refused("call", "no path that moves the cursor without a call")
    print("  %-16s %d instructions, no call, no lock" % (name, min(len(p) for p in fast)))


def main():
    wrong = sys.argv[1] == "--wrong"
    code = functions(sys.argv[-1])
    failures = checked = 0
    for name, body in sorted(code.items()):
        kind = name.split("_")[0]
        if kind not in (("wrong",) if wrong else ("store", "alloc")):
            continue
        checked += 1
        try:
            (check_alloc if kind == "alloc" else check_store)(name, body)
            refused = None
        except Refused as refusal:
            refused = refusal.args
        if wrong:
            expected = name.split("_")[1]
            good = refused is not None and refused[0] == expected
            print("  %-16s %s" % (name, "refused: " + refused[1] if refused else "NOT refused"))
            if refused and not good:
                print("  %-16s   but as '%s'" % ("", refused[0]))
        else:
            good = refused is None
            if refused:
                print("  %-16s REFUSED (%s): %s" % (name, *refused))
        failures += not good
    if checked == 0:
        print("  nothing to check in " + sys.argv[-1])
    sys.exit(1 if failures or not checked else 0)


main()
