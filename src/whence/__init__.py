"""whence: where did this output come from?

The public names, imported when first used: `import whence` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whence import demo as demo
    from whence.components.cross_layer import CrossLayerTranscoder
    from whence.components.head_reads import HeadReads
    from whence.components.loading import load_dictionary, save_dictionary
    from whence.components.neurons import Neurons
    from whence.components.parameter_files import load_components, save_components
    from whence.components.parameters import ParameterComponents, Part
    from whence.components.sae import SAE
    from whence.components.transcoder import Transcoder
    from whence.errors import FileFormatError, LedgerError, UnsupportedModelError, VerificationError, WhenceError
    from whence.interventions.generating import generate
    from whence.interventions.kinds import Intervention, ablate, patch, set_value, steer
    from whence.interventions.outcome import Outcome
    from whence.interventions.running import intervene
    from whence.interventions.session import Freeze
    from whence.methods.circuit import feature_circuit
    from whence.methods.circuit_object import Circuit
    from whence.methods.dataset import dataset_attributions
    from whence.methods.dataset_examples import top_examples
    from whence.methods.direct import direct_logit_attribution
    from whence.methods.direct import direct_logit_attribution as dla
    from whence.methods.edge_attribution import edge_attribution
    from whence.methods.graph import attribution_graph, attribution_graphs
    from whence.methods.head_loadings import head_loadings
    from whence.methods.lens import LogitLens, logit_lens
    from whence.methods.local_edges import local_edges
    from whence.methods.local_edges_object import LocalEdges
    from whence.methods.plan import GraphPlan, plan_graph
    from whence.methods.qk import qk_attribution
    from whence.model.model import Model
    from whence.model.offload import offloaded
    from whence.results.circuit_faithfulness import CircuitScore
    from whence.results.circuit_sweep import CircuitSweep
    from whence.results.dataset import DatasetAttributions
    from whence.results.dataset_spd import import_spd
    from whence.results.graph import Graph
    from whence.results.head_loadings import HeadLoadings
    from whence.results.keys import Edge, LogitTarget, Node
    from whence.results.local_edges import EdgeEffects, EdgeGradients, IndirectEffects
    from whence.results.qk import QKAttribution
    from whence.results.scores import Scores
    from whence.targets.attribution import AttributionTargets
    from whence.targets.concepts import concept_direction
    from whence.targets.custom import CustomTarget
    from whence.targets.pair_files import load_pairs
    from whence.targets.pair_templates import relative_clause_pairs
    from whence.targets.pairs import Pairs
    from whence.targets.specs import activation, kl_divergence, log_probability, logit_difference, metric, probability
    from whence.verification.report import VerificationReport
    from whence.verification.verify import verify

_HOME = {
    "AttributionTargets": "targets.attribution",
    "Circuit": "methods.circuit_object",
    "CircuitScore": "results.circuit_faithfulness",
    "CircuitSweep": "results.circuit_sweep",
    "CrossLayerTranscoder": "components.cross_layer",
    "CustomTarget": "targets.custom",
    "DatasetAttributions": "results.dataset",
    "Edge": "results.keys",
    "EdgeEffects": "results.local_edges",
    "EdgeGradients": "results.local_edges",
    "FileFormatError": "errors",
    "Freeze": "interventions.session",
    "Graph": "results.graph",
    "GraphPlan": "methods.plan",
    "HeadLoadings": "results.head_loadings",
    "HeadReads": "components.head_reads",
    "IndirectEffects": "results.local_edges",
    "Intervention": "interventions.kinds",
    "LedgerError": "errors",
    "LocalEdges": "methods.local_edges_object",
    "LogitLens": "methods.lens",
    "LogitTarget": "results.keys",
    "Model": "model.model",
    "Neurons": "components.neurons",
    "Node": "results.keys",
    "Outcome": "interventions.outcome",
    "Pairs": "targets.pairs",
    "ParameterComponents": "components.parameters",
    "Part": "components.parameters",
    "QKAttribution": "results.qk",
    "SAE": "components.sae",
    "Scores": "results.scores",
    "Transcoder": "components.transcoder",
    "UnsupportedModelError": "errors",
    "VerificationError": "errors",
    "VerificationReport": "verification.report",
    "WhenceError": "errors",
    "ablate": "interventions.kinds",
    "activation": "targets.specs",
    "attribution_graph": "methods.graph",
    "attribution_graphs": "methods.graph",
    "concept_direction": "targets.concepts",
    "dataset_attributions": "methods.dataset",
    "direct_logit_attribution": "methods.direct",
    "dla": "methods.direct",
    "edge_attribution": "methods.edge_attribution",
    "feature_circuit": "methods.circuit",
    "generate": "interventions.generating",
    "head_loadings": "methods.head_loadings",
    "import_spd": "results.dataset_spd",
    "intervene": "interventions.running",
    "kl_divergence": "targets.specs",
    "load_components": "components.parameter_files",
    "load_dictionary": "components.loading",
    "load_pairs": "targets.pair_files",
    "local_edges": "methods.local_edges",
    "log_probability": "targets.specs",
    "logit_difference": "targets.specs",
    "logit_lens": "methods.lens",
    "metric": "targets.specs",
    "offloaded": "model.offload",
    "patch": "interventions.kinds",
    "plan_graph": "methods.plan",
    "probability": "targets.specs",
    "qk_attribution": "methods.qk",
    "relative_clause_pairs": "targets.pair_templates",
    "save_components": "components.parameter_files",
    "save_dictionary": "components.loading",
    "set_value": "interventions.kinds",
    "steer": "interventions.kinds",
    "top_examples": "methods.dataset_examples",
    "verify": "verification.verify",
}
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  # a test keeps the three lists in step
    "SAE",
    "AttributionTargets",
    "Circuit",
    "CircuitScore",
    "CircuitSweep",
    "CrossLayerTranscoder",
    "CustomTarget",
    "DatasetAttributions",
    "Edge",
    "EdgeEffects",
    "EdgeGradients",
    "FileFormatError",
    "Freeze",
    "Graph",
    "GraphPlan",
    "HeadLoadings",
    "HeadReads",
    "IndirectEffects",
    "Intervention",
    "LedgerError",
    "LocalEdges",
    "LogitLens",
    "LogitTarget",
    "Model",
    "Neurons",
    "Node",
    "Outcome",
    "Pairs",
    "ParameterComponents",
    "Part",
    "QKAttribution",
    "Scores",
    "Transcoder",
    "UnsupportedModelError",
    "VerificationError",
    "VerificationReport",
    "WhenceError",
    "ablate",
    "activation",
    "attribution_graph",
    "attribution_graphs",
    "concept_direction",
    "dataset_attributions",
    "direct_logit_attribution",
    "dla",
    "edge_attribution",
    "feature_circuit",
    "generate",
    "head_loadings",
    "import_spd",
    "intervene",
    "kl_divergence",
    "load_components",
    "load_dictionary",
    "load_pairs",
    "local_edges",
    "log_probability",
    "logit_difference",
    "logit_lens",
    "metric",
    "offloaded",
    "patch",
    "plan_graph",
    "probability",
    "qk_attribution",
    "relative_clause_pairs",
    "save_components",
    "save_dictionary",
    "set_value",
    "steer",
    "top_examples",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "demo":
        return import_module("whence.demo")
    if name not in _HOME:
        raise AttributeError(f"module 'whence' has no attribute {name!r}; it has: {', '.join(sorted(_HOME))}")
    attribute = "direct_logit_attribution" if name == "dla" else name
    return getattr(import_module(f"whence.{_HOME[name]}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
