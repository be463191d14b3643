"""An explicit-state model of submission, giving up, closing, cancel, fencing and lease (DESIGN section 3).

One bundle with one job, two rounds, a pilot and its second epoch, the batch jobs of both rounds with their gates and
agents, and a number of faults anywhere. Every order of single file operations and durable records is tried, breadth
first, so the first violation found has the shortest story. docs/architecture/protocol-model.md says what is modelled,
what was measured and what this cannot show.

Delays are counted in ticks (`state.VISIBLE`, `POLL`, `KILL`). A tick may pass whenever no process that works would
break one of its own bounds by it; a process that hangs has no bounds. Ticks pass only while something counts them: from
`closed` on, and from the first mark on with weak fencing. Everything before that may take any time at all: reading a
claim or a line that is not visible yet is a step not taken, and a door may be read stale for ever. What follows:

* a bound that is too short by less than one tick is not noticed, and nothing is said about bounds that do not hold
  (visibility beyond `visible_s`, an agent that works but does not look for longer than `poll_s`);
* of two waits, only their order counts; how long anything takes is for the virtual world and the simulated site.
"""
