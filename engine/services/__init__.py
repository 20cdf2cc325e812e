"""What can be asked of the engine, one module a noun: `<entity>_<action>`.

Functions that only write rows and queue operations may be called by the unprivileged web;
those that touch disk, runtime or network live in `engine.services.work` and belong to the
worker and engined.
"""
