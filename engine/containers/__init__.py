"""Containers on one machine: their folders, their life, their log, their terminals."""
