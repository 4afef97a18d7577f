"""YAML of models, from untrusted sources: parsed with limits, into mappings whose keys are text and given once."""

# yaml has no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from pathlib import Path
from typing import Any, Final, cast

import yaml

from ...readers.files import MAX_JSON_DEPTH, reject_duplicate_names
from .untrusted import CHECK_FILE, CHECK_PATH, MIB, UntrustedDict, read_bytes, readable, untrusted_mapping, wrap_errors

MAX_YAML: Final = MIB // 4


def read_yaml(path: Path, subject: str) -> UntrustedDict:
    """The mapping in a YAML file. Raises `ModelError` for anything else, and as `untrusted_mapping` does."""
    content = read_bytes(path, subject, most=MAX_YAML)
    with wrap_errors(subject, readable(path), remedy=CHECK_PATH):
        text = content.decode("utf-8")
    return parse_yaml(text, subject)


def parse_yaml(text: str, subject: str, *, shipped: bool = False) -> UntrustedDict:
    """The mapping in a YAML text. Raises `ModelError` for anything else, and as `untrusted_mapping` does.

    One that is `shipped` with limner is parsed in C, which is faster and does not limit nesting.
    """
    with wrap_errors(subject, "must be YAML", remedy=CHECK_FILE):
        found: object = yaml.load(text, Loader=_ShippedLoader if shipped else _Loader)  # noqa: S506 - SafeLoaders that are stricter still
    return untrusted_mapping(found, subject)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with text keys that are given once and limited nesting."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - its own name for it
        """Begin a list or mapping in brackets."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        """Begin a list or mapping by indentation."""
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, levels: int) -> None:
        if levels > MAX_JSON_DEPTH:
            msg = f"it is nested more than {MAX_JSON_DEPTH} deep"
            raise ValueError(msg)


_fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may have been built without libyaml
_ShippedLoader = cast("type[yaml.SafeLoader]", type("_ShippedLoader", (_fast,), {}))
"""YAML's safe loader in C, with text keys that are given once."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = [(loader.construct_object(key, deep=True), value) for key, value in node.value]
    bad = [key for key, _ in pairs if not isinstance(key, str) or key == "<<"]  # merged keys can grow without an end
    if bad:
        msg = f"the key {bad[0]!r} must be text, and no merge"
        raise ValueError(msg)
    return reject_duplicate_names(
        [(cast("str", key), loader.construct_object(value, deep=True)) for key, value in pairs]
    )


for _loader in (_Loader, _ShippedLoader):
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
