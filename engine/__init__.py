"""The container engine: images, builds, containers, networks. It never imports `console`."""
