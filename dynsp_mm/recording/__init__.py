"""Looking at what a model does without touching it."""

from .recorder import (
    BackboneCall,
    DecisionLog,
    Record,
    SemanticAttention,
    record_decisions,
    record_maps,
    record_semantic_attention,
)

__all__ = [
    'BackboneCall',
    'DecisionLog',
    'Record',
    'SemanticAttention',
    'record_decisions',
    'record_maps',
    'record_semantic_attention',
]
