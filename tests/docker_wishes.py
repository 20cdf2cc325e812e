"""What a container's creation can ask for, for test_api_surface: each property the Docker Engine
API knows is in one of three tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]

# Each asks for something and is given back by inspect, leaf by leaf.
CREATED: tuple[JSON, ...] = (
    {"Image": "box", "Hostname": "boat", "Domainname": "sea", "User": "1:2", "WorkingDir": "/tmp"},
    {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "OpenStdin": True},
    {"StdinOnce": True, "Tty": True, "Env": ["A=1"], "Cmd": ["a"], "Entrypoint": ["b"]},
    {"ExposedPorts": {"81/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"a": "b"}},
    {"StopSignal": "SIGUSR1", "StopTimeout": 7, "OnBuild": ["RUN x"], "Shell": ["/bin/x"]},
    {"MacAddress": "02:42:0a:00:00:07"},
    {"NetworkDisabled": True},
    {
        "Healthcheck": {
            "Test": ["CMD", "x"],
            "Interval": 2_000_000_000,
            "Timeout": 3_000_000_000,
            "StartPeriod": 4_000_000_000,
            "StartInterval": 5_000_000_000,
            "Retries": 6,
        }
    },
    {
        "HostConfig": {
            "Memory": 1 << 26,
            "MemorySwap": 1 << 27,
            "MemoryReservation": 1 << 25,
            "MemorySwappiness": 0,
            "OomKillDisable": True,
            "NanoCpus": 500_000_000,
            "CpuShares": 77,
            "CpusetCpus": "0",
            "CpusetMems": "0",
            "PidsLimit": 9,
            "BlkioWeight": 300,
            "ShmSize": 1 << 22,
            "OomScoreAdj": 5,
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
        }
    },
    {"HostConfig": {"CpuQuota": 50_000, "CpuPeriod": 60_000}},
    {
        "HostConfig": {
            "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}],
            "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 6}],
            "BlkioDeviceWriteBps": [{"Path": "/dev/sda", "Rate": 7}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 8}],
        }
    },
    {
        "HostConfig": {
            "CapAdd": ["CHOWN"],
            "CapDrop": ["MKNOD"],
            "GroupAdd": ["7"],
            "Init": True,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": {"/t": "size=1m"},
            "Sysctls": {"net.ipv4.ip_forward": "0"},
            "Annotations": {"a": "b"},
            "ConsoleSize": [24, 80],
            "ContainerIDFile": "/x",
            "IpcMode": "none",
            "CgroupnsMode": "private",
            "Runtime": "runc",
            "Dns": ["9.9.9.9"],
            "DnsOptions": ["ndots:2"],
            "DnsSearch": ["sea"],
            "ExtraHosts": ["a:1.2.3.4"],
            "PublishAllPorts": True,
            "NetworkMode": "bridge",
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8099"}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
            "Links": None,
        }
    },
    {"HostConfig": {"AutoRemove": True, "NetworkMode": "none"}},
    {"HostConfig": {"Binds": ["kept:/kept:ro"]}},
    {
        "HostConfig": {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "more",
                    "Target": "/more",
                    "ReadOnly": True,
                    "VolumeOptions": {
                        "NoCopy": True,
                        "Labels": {"a": "b"},
                        "DriverConfig": {
                            "Name": "local",
                            "Options": {"type": "tmpfs", "device": "x"},
                        },
                    },
                },
                {
                    "Type": "tmpfs",
                    "Target": "/t",
                    "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700},
                },
            ]
        }
    },
    {
        "NetworkingConfig": {
            "EndpointsConfig": {
                "bridge": {
                    "IPAMConfig": {"LinkLocalIPs": ["169.254.7.7"]},
                    "DriverOpts": {"a": "b"},
                    "MacAddress": "02:42:0a:00:00:08",
                    "Links": None,
                }
            }
        }
    },
    {
        "HostConfig": {"NetworkMode": "wide"},
        "NetworkingConfig": {
            "EndpointsConfig": {
                "wide": {
                    "Links": ["later:x"],
                    "Aliases": ["site"],
                    "IPAMConfig": {"IPv4Address": "10.97.8.8"},
                }
            }
        },
    },
)
# Each is answered with a status from 400 on and a sentence that has the word.
_DEVICE = {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}
REFUSED: tuple[tuple[JSON, str], ...] = (
    *(
        ({"HostConfig": {key: value}}, key)
        for key, value in {
            "Cgroup": "x",
            "CpuCount": 1,
            "CpuPercent": 1,
            "CpuRealtimePeriod": 1000,
            "CpuRealtimeRuntime": 1000,
            "IOMaximumBandwidth": 1,
            "IOMaximumIOps": 1,
            "StorageOpt": {"size": "1G"},
            "Isolation": "hyperv",
            "VolumeDriver": "nosuch",
            "DeviceRequests": [
                {
                    "Driver": "x",
                    "Count": 1,
                    "DeviceIDs": ["0"],
                    "Options": {"a": "b"},
                    "Capabilities": [["gpu"]],
                }
            ],
            "MaskedPaths": ["/proc/x"],
            "ReadonlyPaths": ["/proc/x"],
        }.items()
    ),
    # Under root's ceiling, which allows nothing of these by default.
    ({"HostConfig": {"Privileged": True}}, "privileged"),
    ({"HostConfig": {"Devices": [_DEVICE]}}, "device"),
    ({"HostConfig": {"DeviceCgroupRules": ["c 7:* rmw"]}}, "device"),
    ({"HostConfig": {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 5}]}}, "weight"),
    ({"HostConfig": {"CgroupParent": "/x"}}, "cgroup"),
    ({"HostConfig": {"PidMode": "host"}}, "pid"),
    ({"HostConfig": {"UTSMode": "host"}}, "uts"),
    ({"HostConfig": {"UsernsMode": "host:x"}}, "user"),
    ({"HostConfig": {"Links": ["nosuch:x"]}}, "nosuch"),
    ({"HostConfig": {"VolumesFrom": ["nosuch"]}}, "nosuch"),
    *(
        (
            {
                "HostConfig": {
                    "Mounts": [
                        {"Type": "bind", "Source": "/etc", "Target": "/m", "BindOptions": more}
                    ]
                }
            },
            word,
        )
        for more, word in (
            ({"Propagation": "rshared"}, "bind"),
            ({"NonRecursive": True, "CreateMountpoint": True}, "bind"),
            ({"ReadOnlyForceRecursive": True}, "ReadOnlyForceRecursive"),
            ({"ReadOnlyNonRecursive": True}, "ReadOnlyNonRecursive"),
        )
    ),
    *(
        ({"HostConfig": {"Mounts": [{"Source": "x", "Target": "/m", **more}]}}, word)
        for more, word in (
            ({"Type": "volume", "VolumeOptions": {"Subpath": "x"}}, "Subpath"),
            ({"Type": "image", "ImageOptions": {"Subpath": "x"}}, "mount type unknown"),
            ({"Type": "volume", "Consistency": "nosuch"}, "nosuch"),
            ({"Type": "tmpfs", "Source": "", "TmpfsOptions": {"Options": [["exec"]]}}, "Options"),
        )
    ),
    *(
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": more}}}, word)
        for more, word in (
            ({"IPAMConfig": {"IPv6Address": "fd00::2"}}, "IPv6Address"),
            ({"GwPriority": 1}, "GwPriority"),
            ({"IPAMConfig": {"NoSuch": "x"}}, "NoSuch"),
            ({"NoSuch": "x"}, "NoSuch"),
        )
    ),
    ({"NoSuch": 1}, "NoSuch"),
    ({"HostConfig": {"NoSuch": 1}}, "NoSuch"),
    ({"NetworkingConfig": {"NoSuch": 1}}, "NoSuch"),
    ({"Healthcheck": {"NoSuch": 1}}, "NoSuch"),
)
# Taken without doing anything, and why that is right.
_SAID = "what the engine says of an endpoint: clients send an inspect's back"
NO_MATTER: Mapping[str, str] = {
    "ArgsEscaped": "Windows' own; images of old Dockers bring it along",
    "HostConfig.Mounts[].Consistency": "of Docker Desktop for the Mac; its four words are known",
    **{
        f"{of}.{key}": _SAID
        for of in ("NetworkingConfig.EndpointsConfig{}", "EndpointConfig")
        for key in (
            *("DNSNames[]", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen"),
            *("IPAddress", "IPPrefixLen", "IPv6Gateway", "NetworkID"),
        )
    },
}
