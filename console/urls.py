"""Addresses. The team is in the path, names work as well as ids, every tab is an address."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from console.permissions import Permission
from console.views import (
    access,
    builds,
    commit,
    container,
    container_settings,
    containers,
    downloads,
    files,
    image_moves,
    images,
    networks,
    overview,
    run,
    stats,
    terminals,
    tokens,
    uploads,
    volumes,
)

_containers = [
    path("", containers.container_list, name="containers"),
    path("rows/", containers.container_rows_now, name="container-rows"),
    path("bulk/", containers.container_bulk, name="container-bulk"),
    path("remove/", containers.container_remove, name="container-remove"),
    path("new/", run.container_new, name="container-new"),
    path("new/defaults/", run.image_defaults, name="image-defaults"),
    path("<str:name>/", container.container_home, name="container"),
    path("<str:name>/logs/", container.container_logs, name="container-logs"),
    path("<str:name>/logs/download/", downloads.log_download, name="log-download"),
    path("<str:name>/terminal/", terminals.terminal_choice, name="container-terminal"),
    path("<str:name>/terminals/", terminals.terminal_new, name="terminal-new"),
    path(
        "<str:name>/terminal/<uuid:session>/", terminals.terminal_session, name="terminal-session"
    ),
    path(
        "<str:name>/terminal/<uuid:session>/end/", terminals.terminal_finish, name="terminal-finish"
    ),
    path("<str:name>/files/", files.container_files, name="container-files"),
    path("<str:name>/files/get/", files.files_get, name="files-get"),
    path("<str:name>/files/put/", files.files_put, name="files-put"),
    path("<str:name>/changes/", files.container_changes, name="container-changes"),
    path("<str:name>/export/", files.container_export, name="container-export"),
    path("<str:name>/commit/", commit.container_commit, name="container-commit"),
    path("<str:name>/inspect/", container.container_inspect, name="container-inspect"),
    path("<str:name>/settings/", container_settings.container_settings, name="container-settings"),
    path("<str:name>/start/", container.container_start, name="container-start"),
    path("<str:name>/stop/", container.container_stop, name="container-stop"),
    path("<str:name>/restart/", container.container_restart, name="container-restart"),
    path("<str:name>/kill/", container.container_kill, name="container-kill"),
    path("<str:name>/pause/", container.container_pause, name="container-pause"),
    path("<str:name>/unpause/", container.container_unpause, name="container-unpause"),
    path("<str:name>/limits/", container_settings.container_limits, name="container-limits"),
    path("<str:name>/connect/", container_settings.container_connect, name="container-connect"),
    path(
        "<str:name>/disconnect/",
        container_settings.container_disconnect,
        name="container-disconnect",
    ),
    path("<str:name>/stats/", stats.container_stats, name="container-stats"),
]

_builds = [
    path("", builds.build_list, name="builds"),
    path("rows/", builds.build_rows_now, name="build-rows"),
    path("new/", builds.build_new, name="build-new"),
    path("<int:number>/", builds.build_page, name="build"),
    path("<int:number>/cancel/", builds.build_cancel, name="build-cancel"),
    path("<int:number>/again/", builds.build_again, name="build-again"),
]

_images = [
    path("", images.image_list, name="images"),
    path("rows/", images.image_rows_now, name="image-rows"),
    path("pull/", images.image_pull, name="image-pull"),
    path("pull/<int:id>/cancel/", images.pull_cancel, name="pull-cancel"),
    path("load/", image_moves.image_load, name="image-load"),
    path("prune/", image_moves.image_prune, name="image-prune"),
    path("i/<str:digest>/push/", image_moves.image_push, name="image-push"),
    path("i/<str:digest>/save/", image_moves.image_save, name="image-save"),
    path("i/<str:digest>/layers/", images.image_layers, name="image-layers"),
    path("i/<str:digest>/config/", images.image_config, name="image-config"),
    path("i/<str:digest>/tag/", images.image_tag, name="image-tag"),
    path("i/<str:digest>/untag/", images.image_untag, name="image-untag"),
    path("i/<str:digest>/remove/", images.image_remove, name="image-remove"),
]

_volumes = [
    path("", volumes.volume_list, name="volumes"),
    path("rows/", volumes.volume_rows_now, name="volume-rows"),
    path("new/", volumes.volume_new, name="volume-new"),
    path("prune/", volumes.volume_prune, name="volume-prune"),
    path("v/<str:name>/", volumes.volume_page, name="volume"),
    path("v/<str:name>/remove/", volumes.volume_remove, name="volume-remove"),
]

_networks = [
    path("", networks.network_list, name="networks"),
    path("rows/", networks.network_rows_now, name="network-rows"),
    path("new/", networks.network_new, name="network-new"),
    path("prune/", networks.network_prune, name="network-prune"),
    path("n/<str:name>/", networks.network_page, name="network"),
    path("n/<str:name>/connect/", networks.network_connect, name="network-connect"),
    path("n/<str:name>/disconnect/", networks.network_disconnect, name="network-disconnect"),
    path("n/<str:name>/remove/", networks.network_remove, name="network-remove"),
]

_uploads = [
    path("builds/", include(uploads.urls(Permission.BUILD, "uploads-builds"))),
    path("files/", include(uploads.urls(Permission.WRITE, "uploads-files"))),
    path("images/", include(uploads.urls(Permission.IMAGES, "uploads-images"))),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", access.home, name="home"),
    path("setup/", access.setup, name="setup"),
    path("sign-in/", access.SignIn.as_view(), name="sign-in"),
    path("sign-out/", access.SignOut.as_view(), name="sign-out"),
    path("language/", access.language, name="language"),
    path("session/", access.session, name="session"),
    path("words.js", access.words, name="words"),
    path("me/tokens/", tokens.token_list, name="tokens"),
    path("me/tokens/revoke/", tokens.token_gone, name="token-revoke"),
    path("healthz", access.health, name="health"),
    path("t/<slug:team>/", overview.dashboard, name="dashboard"),
    path("t/<slug:team>/containers/", include(_containers)),
    path("t/<slug:team>/builds/", include(_builds)),
    path("t/<slug:team>/images/", include(_images)),
    path("t/<slug:team>/volumes/", include(_volumes)),
    path("t/<slug:team>/networks/", include(_networks)),
    path("t/<slug:team>/uploads/", include(_uploads)),
]
