"""A page as a program: its statements, what each binds and uses, and the slice that a check depends on."""

import ast

CHANGES = {"append", "extend", "insert", "update", "add", "pop", "load_state_dict", "fit", "initialize", "eval", "train", "to",
           "double"}        # methods that change their object, besides those that end in _
COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


def code_cells(text):
    """The sources of the code cells of a notebook's text (jupytext's percent format)."""
    parts = ("\n" + text).split("\n# %%")[1:]
    return [part.split("\n", 1)[1].strip("\n") for part in parts if "[markdown]" not in part.split("\n", 1)[0] and "\n" in part]


def statements(cells):
    """Every top-level statement of code cells, in order; cells that only show a widget are left out."""
    kept = [c for c in cells if not is_widget(c)]
    return [node for source in kept for node in ast.parse(source).body]


def is_widget(source):
    """Does this cell only show a widget (`interact(…)`, `break_it()`), so that nothing depends on it?"""
    return "def " not in source and any(word in source for word in ("interact(", "interactive(", "break_it("))


def checks(program):
    """(equation, statement) for every statement that contains a call of check with a literal number."""
    found = []
    for node in program:
        calls = [c for c in ast.walk(node) if isinstance(c, ast.Call) and getattr(c.func, "id", "") == "check"]
        found += [(c.args[0].value, node) for c in calls if c.args and isinstance(c.args[0], ast.Constant)]
    return found


def needed(program, targets):
    """The statements that the target statements depend on, themselves included, in order: a static slice."""
    last, fixed = max(program.index(t) for t in targets), never_changed(program)
    names, chosen, before = set(), {id(t) for t in targets}, -1
    bound = {id(node): binds(node, fixed) | (uses(node) - fixed if trains(node) else set()) for node in program[:last + 1]}
    for t in targets:
        names |= uses(t)
    while before != len(chosen):
        before = len(chosen)
        for node in program[:last + 1]:
            if id(node) not in chosen and (bound[id(node)] & names or is_setup(node)):
                chosen.add(id(node))
                names |= uses(node)
    return [node for node in program[:last + 1] if id(node) in chosen]


def is_setup(node):
    source = ast.unparse(node)
    return "sys.path.insert" in source or source.startswith("torch.set_default_dtype")


def never_changed(program):
    """Names that no method call and no training changes: what is imported or defined, constants, the device."""
    made = (binds(node) for node in program if is_definition(node) or isinstance(node, (ast.Import, ast.ImportFrom))
            or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)))
    return {"device"}.union(*made)


def trains(node):
    """Does this statement take optimiser steps? They change what no name in it shows: whatever it reads may change."""
    return not is_definition(node) and any(isinstance(c, ast.Call) and getattr(c.func, "attr", "") in ("step", "backward")
                                           for c in ast.walk(node))


def is_definition(node):
    return isinstance(node, (ast.FunctionDef, ast.ClassDef))


def uses(node):
    """Names that a statement reads from the page: without the local names of the functions it defines."""
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
        parts = node.body if isinstance(node.body, list) else [node.body]
        inside = set().union(*(uses(part) for part in parts))
        a = node.args
        own = {x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x}
        own |= {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        outside = [*a.defaults, *filter(None, a.kw_defaults), *getattr(node, "decorator_list", [])]
        return inside - own | set().union(*map(uses, outside))
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, COMPREHENSIONS):
        inside = set().union(*(uses(child) for child in ast.iter_child_nodes(node)))
        return inside - _targets(node) | uses(node.generators[0].iter)          # that one is evaluated outside
    return set().union(*(uses(child) for child in ast.iter_child_nodes(node)))


def binds(node, fixed=frozenset()):
    """Names that a statement binds or changes in place. Methods change nothing named in `fixed`: `torch.rand(3).double()`."""
    if is_definition(node):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    names = _stored_names(node)
    names |= {_base(n) for n in ast.walk(node) if isinstance(n, (ast.Subscript, ast.Attribute)) and isinstance(n.ctx, ast.Store)}
    names |= {n.name for n in ast.walk(node) if is_definition(n)}
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)):
        if call.func.attr.endswith("_") or call.func.attr in CHANGES:
            names |= {_base(call.func)} - fixed
    return names - {""}


def _targets(comprehension):
    """The variables of a comprehension: they exist inside it only."""
    return {n.id for part in comprehension.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)}


def _stored_names(node):
    """Names that a statement assigns, without the variables of comprehensions."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    inside = set().union(*(_stored_names(child) for child in ast.iter_child_nodes(node)))
    return inside - _targets(node) if isinstance(node, COMPREHENSIONS) else inside


def _base(node):
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def affected(program, name, targets):
    """What has to run again when the definition of `name` changes, so that the targets say what they would: a sub-list.

    Forwards: which targets depend on it. Backwards from those: whatever they need that depends on it too, or that another
    statement, a later one of the page or one that runs again, has bound anew. All else can be taken as the page left it.
    """
    graph = _Graph(program)
    stale = graph.stale(name)
    open_, chosen = {k for k, node in enumerate(program) if node in targets and graph.reads[k] & stale[k]}, set()
    while open_:
        chosen |= open_
        moved = set().union(*(graph.bound[k] for k in chosen))
        open_ = {j for k in chosen for used in graph.reads[k] if used in stale[k] | moved or graph.last.get(used, -1) > k
                 for j in graph.binders(used, k)} - chosen
    again = {name}.union(*(graph.bound[k] for k in chosen))
    for k, node in enumerate(program):          # functions look their names up in the namespace they were made in
        if is_definition(node) and (node.name == name or graph.reads[k] & again):
            chosen.add(k)
    return [program[k] for k in sorted(chosen)]


def _makes_generator(node):
    """Does this statement bind a random generator? Whoever reads one changes it."""
    call = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value)
    return bool(call) and call.startswith(("torch.Generator(", "np.random.default_rng(", "np.random.RandomState("))


class _Graph:
    """Who binds and who reads what: `bound[k]`, `reads[k]` (through the functions named there), `last[name]` binder."""

    def __init__(self, program):
        self.program = program
        plain = [uses(node) for node in program]
        inside = {}
        for node, used in zip(program, plain):
            if is_definition(node):
                inside.setdefault(node.name, set()).update(used)
        self.reads = [self._closed(used, inside) for used in plain]
        drawn_from = set().union(*(binds(node) for node in program if _makes_generator(node)))
        fixed = never_changed(program)
        self.bound = [binds(node, fixed) | (used - fixed if trains(node) else used & drawn_from)
                      for node, used in zip(program, plain)]
        self.last = {name: k for k, names in enumerate(self.bound) for name in names}

    @staticmethod
    def _closed(names, inside):
        """The names, and those that the functions among them read, and so on."""
        seen, open_ = set(), set(names)
        while open_:
            one = open_.pop()
            seen.add(one)
            open_ |= inside.get(one, set()) - seen
        return seen

    def stale(self, name):
        """For each statement, the names that depend on `name` when it runs."""
        now, before = {name}, []
        for k, node in enumerate(self.program):
            before.append(set(now))
            if self.reads[k] & now or getattr(node, "name", None) == name:
                now |= self.bound[k]
            else:
                now -= self.stored(k)
        return before

    def stored(self, k):
        """Names that statement k binds to something new (not merely changes)."""
        return _stored_names(self.program[k])

    def binders(self, name, k):
        """The statements before k that made `name` what it is there, back to the one that bound it."""
        found = []
        for j in range(k - 1, -1, -1):
            if name in self.bound[j] and not is_definition(self.program[j]):
                found.append(j)
                if name in self.stored(j):
                    break
        return found
