"""Usage texts of Torque 6.1.3's commands, as captured."""

QSUB = """usage: qsub [-a date_time] [-A account_string] [-b secs]
    [-c [ none | { enabled | periodic | shutdown |
    depth=<int> | dir=<path> | interval=<minutes>}... ]
    [-C directive_prefix] [-d path] [-D path]
    [-e path] [-h] [-I] [-j oe|eo|n] [-k {oe}] [-K <kill delay seconds>] 
    [-l resource_list] [-m n|{abe}] [-M user_list] [-N jobname] [-o path] 
    [-p priority] [-P proxy_user [-J <jobid]] [-q queue] [-r y|n] 
    [-S path] [-t number_to_submit] [-T type]  [-u user_list] [-w] path
    [-W additional_attributes] [-v variable_list] [-V ] [-x] [-X] [-z] [script]

"""  # noqa: W291

QSTAT = """usage: 
                          qstat [-f [-1]] [-W site_specific] [-x] [ job_identifier... | destination... ]
                          qstat [-a|-i|-r|-e] [-u user] [-n [-1]] [-s] [-t] [-G|-M] [-R] [job_id... | destination...]
                          qstat -Q [-f [-1]] [-W site_specific] [ destination... ]
                          qstat -q [-G|-M] [ destination... ]
                          qstat -B [-f [-1]] [-W site_specific] [ server_name... ]
                          qstat -t
"""  # noqa: W291

QDEL = (
    "usage: qdel [{ -a | -c | -p | -t | -W delay | -m message}] [-b retry_seconds] "
    "[<JOBID>[<JOBID>]|'all'|'ALL']...\n"
    "       -a -c, -m, -p, -t, and -W are mutually exclusive\n"
)

PBSNODES = """usage:	pbsnodes [-{c|d|o|r}] [-s server] [-n] [-N "note"] node ...
	pbsnodes -l [-s server] [-n] [state]
	pbsnodes [-a] [-x] [-q] [-s server] [node]
"""

VERSION = "Version: 6.1.3\nCommit: ccdab3b43f4578573b166587f2f327a2ce9605e9\n"
