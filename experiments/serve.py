r"""Answers over HTTP what a trained model predicts of what is sent.

    python -m experiments.serve --model=FOLDER [--demo] [--host=127.0.0.1] [--port=8000]
        [--hosts=NAME,...] [--batch_sizes=1,2,4,8,16,32] [--batch_wait_ms=5] [--processes=N]
        [--LIMIT=NUMBER ...]

`POST /predict` takes files and JSON; `/docs` says how. `/health` is 200 when the model is warm,
`/metrics` is for Prometheus. With `--demo`, `/` is a page to try the model on. It ends with SIGTERM
or Ctrl-C: what is accepted is answered.
"""

import dataclasses
import ipaddress
import pathlib
import sys
import time

from experiments import cli, compilation_cache
from perceiver_jax import config as config_lib

_LIMITS = {
    "upload_mb": "MiB of a request's body",
    "pending_mb": "MiB of the bodies of all requests that are not answered yet",
    "queue": "requests that are accepted and not answered yet; others get 503",
    "rows": "examples of a request, each of its windows counted",
    "upload_seconds": "until a request has come in whole",
    "decode_seconds": "for reading what a request holds",
    "answer_seconds": "from when a request has come in to its answer",
    "decode_mb": "MiB of address space of a process that reads",
    "pixels": "of a picture or a frame",
    "clip_seconds": "of a recording, of which the first 60 are read",
}

_LOCAL = ("localhost", "127.0.0.1", "[::1]")  # In the header Host.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.serve", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", required=True, help="an exported folder, a workdir, weights or a released name"
    )
    parser.add_argument("--demo", action="store_true", help="with a page to try the model on")
    parser.add_argument("--host", default="127.0.0.1", help="the address that is listened at")
    parser.add_argument(
        "--hosts",
        default="",
        metavar="NAME,...",
        help="that requests may be for, by their header Host, beside localhost and the address; "
        "without, of this computer no others, and any of others",
    )
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument(
        "--batch_sizes",
        default="1,2,4,8,16,32",
        help="examples that are computed at once, a program each; default: %(default)s",
    )
    parser.add_argument(
        "--batch_wait_ms", type=float, default=5.0, help="for more examples; default: %(default)s"
    )
    parser.add_argument(
        "--processes", type=int, help="that read requests; default: as many as cores"
    )
    compilation_cache.add_flag(parser)
    with cli.user_errors_end_the_program():
        from perceiver_jax.serving import limits as limits_lib

        for field in dataclasses.fields(limits_lib.Limits):
            parser.add_argument(
                f"--{field.name}",
                type=field.type,
                default=field.default,
                metavar="NUMBER",
                help=f"{_LIMITS[field.name]}; default: %(default)s",
            )
        flags = parser.parse_args(argv)
        names = (field.name for field in dataclasses.fields(limits_lib.Limits))
        limits = limits_lib.Limits(**{name: getattr(flags, name) for name in names})
        sys.exit(_serve(flags, limits))


def _serve(flags, limits) -> int:
    """Serves; returns the exit code."""
    begun = time.monotonic()
    from perceiver_jax.data.builders import isolated
    from perceiver_jax.serving import running

    processes = isolated.num_cores() if flags.processes is None else flags.processes
    config_lib.check(
        {"processes": processes, "batch_wait_ms": flags.batch_wait_ms},
        processes=config_lib.AT_LEAST_ONE,
        batch_wait_ms=config_lib.NOT_NEGATIVE,
    )
    sizes = _sizes(flags.batch_sizes)
    with running.listen(flags.host, flags.port) as listening:  # Before anything takes time.
        from perceiver_jax.pretrained import load
        from perceiver_jax.serving import app, service

        compilation_cache.use(flags.compilation_cache, pathlib.Path(flags.model))
        served = service.Service(
            load.load_pretrained(flags.model),
            limits,
            batch_sizes=sizes,
            batch_wait=flags.batch_wait_ms / 1000,
            num_processes=processes,
            with_page=flags.demo,
        )
        failed = []

        def on_warm(error: BaseException | None) -> None:
            if error is None:
                print(f"ready after {time.monotonic() - begun:.1f} s", flush=True)
            else:
                failed.append(error)
                server.should_exit = True

        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        named = [name for name in flags.hosts.lower().split(",") if name]
        hosts = {*_LOCAL, shown, *named} if named or _is_local(host) else None
        server = running.make_server(
            app.build_app(served, flags.demo, on_warm, hosts), limits.answer_seconds
        )
        print(f"serving {flags.model} at http://{shown}:{port}{'' if flags.demo else '/docs'}")
        if not _is_local(host):
            print(
                f"Warning: whoever reaches {host} can use this server: it asks for no password and "
                "encrypts nothing. Put what does both in front of it.",
                file=sys.stderr,
            )
        sys.stdout.flush()
        running.run(server, listening)
    if failed:
        raise failed[0]
    return 0


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise config_lib.UserError(
            f"batch_sizes is {text!r}; expected numbers, at least 1, such as 1,8,32. Change it."
        )
    return sizes


def _is_local(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


if __name__ == "__main__":
    main(sys.argv[1:])
