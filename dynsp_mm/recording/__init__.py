"""Listening to what a model does without touching it."""

from .decisions import DecisionLog, Record, record_decisions
from .logits import OutputRecorder, classifies_by_softmax, logit_layer
from .maps import BackboneCall, record_maps
from .recorder import Recorder
from .semantic_attention import SemanticAttention, record_semantic_attention

__all__ = [
    'BackboneCall',
    'DecisionLog',
    'OutputRecorder',
    'Record',
    'Recorder',
    'SemanticAttention',
    'classifies_by_softmax',
    'logit_layer',
    'record_decisions',
    'record_maps',
    'record_semantic_attention',
]
