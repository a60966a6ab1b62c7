"""Rotary embeddings of models whose layers with a window have their own.

transformers 5 has a section for each kind of layer in `rope_parameters`; what a section lacks comes
from the fields of transformers 4, which knows nothing else. There `rope_scaling` is of the layers
that see all positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from megatron_msm.formats.json_types import JsonValue
from megatron_msm.models.config_fields import Config, ConfigFields
from megatron_msm.models.families.window_layers import FULL, WINDOW
from megatron_msm.models.rope_reading import Rope, read_rope
from megatron_msm.models.shape import RopeShape


@dataclass(frozen=True)
class WindowRopes:
    """How a class of transformers reads them."""

    theta_fields: Mapping[str, str]
    """For each kind of layer the field of transformers 4 that has its theta."""
    default_thetas: Mapping[str, float]
    """For each kind of layer what is taken when nothing is said."""

    def read(self, fields: ConfigFields) -> Rope:
        """Read those of the layers that see all positions, and remark on all.

        Raises:
            CheckpointError: See `read_rope`; or the sections are malformed.
        """
        full, window = (self._of_kind(fields, kind) for kind in (FULL, WINDOW))
        remarks = tuple(
            remark.replace("rotary embeddings", f"rotary embeddings of {kind} layers")
            for kind, rope in ((FULL, full), (WINDOW, window))
            for remark in rope.remarks
        )
        return Rope(full.theta, full.scaling, remarks)

    def of_windows(self, fields: ConfigFields) -> RopeShape:
        """Read those of the layers with a window.

        Raises:
            CheckpointError: See `read_rope`; or the sections are malformed.
        """
        rope = self._of_kind(fields, WINDOW)
        return RopeShape(theta=rope.theta, scaling=rope.scaling)

    def _of_kind(self, fields: ConfigFields, kind: str) -> Rope:
        """Read one kind's section as if it were all that the file says."""
        parameters = sections(fields)
        theta_field = self.theta_fields[kind]
        theta, scaling = fields.take(theta_field), fields.take("rope_scaling")
        alone: dict[str, JsonValue] = {
            "max_position_embeddings": fields.take("max_position_embeddings"),
            "rope_parameters": parameters.get(kind),
        }
        if fields.is_given(theta_field):
            alone["rope_theta"] = theta
        if kind == FULL and scaling is not None:
            alone["rope_scaling"] = _put_into(fields, scaling, parameters)
        source = f"{fields.source}, rotary embeddings of {kind} layers"
        defaults: Config = {"rope_theta": self.default_thetas[kind]}
        return read_rope(ConfigFields(alone, source=source, defaults=defaults, never_null=()))


def sections(fields: ConfigFields) -> Config:
    """Return the sections of `rope_parameters`.

    Raises:
        CheckpointError: It is something else.
    """
    parameters = fields.take("rope_parameters")
    found = {} if parameters is None else parameters
    if not isinstance(found, dict) or not {*found} <= {FULL, WINDOW}:
        needed = f"an object with sections {FULL} and {WINDOW} is needed"
        raise fields.refusal("rope_parameters", parameters, needed)
    return found


def _put_into(fields: ConfigFields, scaling: JsonValue, parameters: Config) -> JsonValue:
    """Return `rope_scaling` with the theta of the section that transformers puts it into.

    The section that it makes when there is none has a `rope_type`, which an old `type` would not
    take the place of.
    """
    if not isinstance(scaling, dict):
        return scaling
    if "type" in scaling and "rope_type" not in scaling:
        raise fields.refusal("rope_scaling", scaling, "transformers needs rope_type for type")
    section = parameters.get(FULL)
    if fields.take("rope_parameters") is not None and not isinstance(section, dict):
        needed = f"transformers puts it into rope_parameters.{FULL}, which is not there"
        raise fields.refusal("rope_scaling", scaling, needed)
    if isinstance(section, dict) and "rope_theta" in section:
        return {"rope_theta": section["rope_theta"], **scaling}
    return scaling
