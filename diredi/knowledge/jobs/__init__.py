"""The long work of a cycle. Each module is a job: `main(spec, folder, report) -> result`, in JSON (`diredi.jobs`)."""
