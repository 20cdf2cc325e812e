"""Websockets: who may open one (access), what all share (base, relay), one module a stream."""
