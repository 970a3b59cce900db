"""Where the two norms of a step come from when the model is wrapped: one source per wrapper.

A source sits where the wrapper lets one look, through its public interface, and measures on the
steps that it is asked to. What it has seen it hands over as a :class:`.seen.Seen`: tensors on
their device, read by nobody yet.

========================  ==================================================================
:mod:`.ddp`               ``DistributedDataParallel``: its communication hook
:mod:`.fsdp`              FSDP2, ``fully_shard``: its custom reduce-scatter
========================  ==================================================================
"""
