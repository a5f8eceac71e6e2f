"""What each column of the files of numbers says, and each protocol."""

from __future__ import annotations

TABLE = """\
| column | what it says |
|---|---|
| `model`, `fast_weights`, `method`, `protocol`, `corpus`, `language` | the arm: which backbone, what is changed at test time (`+context_1`: on top of a backbone that sees the previous chunk), when it is updated, in which order scoring and learning go |
| `budget`, `budget_error` | the mean cost per chunk that the arm is held to, in multiples of SKIP's; what it spent, divided by that, minus one |
| `deterministic`, `n_seeds` | a deterministic arm has one run, since nothing in it depends on a seed; it is never copied to look like several |
| `n_streams`, `n_chunks`, `n_tokens` | what was scored, once per seed: packages, chunks of them, tokens with a next token to predict |
| `loss`, `perplexity`, `bits_per_byte` | nats per token (every token weighs the same), its exponential, and the same information per byte of source code |
| `ci_low`, `ci_high` | {percent} interval of the loss: streams are resampled, seeds are averaged first; most of its width is how much packages differ in difficulty |
| `seed_ci_low`, `seed_ci_high` | t-interval of the mean over seeds, on these very streams |
| `delta_vs_skip`, `delta_ci_low`, `delta_ci_high` | loss minus the loss of the *trained adapter with 0 updates* of the same fast weights (for `none`: of the plain backbone), paired by stream; **below zero is better** |
| `delta_seed_ci_low`, `delta_seed_ci_high` | t-interval of that difference over seeds |
| `delta_iqm`, `p_improvement` | interquartile mean of the streams' own differences; probability that a random run has the lower loss on a random stream (0.5 is no difference) |
| `gain_slope`, `gain_slope_ci_low`, `gain_slope_ci_high` | how much the gain over `skip` grows from one chunk of a stream to the next, nats per token; above zero, adaptation grows with the stream |
| `delta_vs_plain…`, `delta_vs_context_1…` | the same paired difference to the plain backbone, and to the backbone that sees the previous chunk as context |
| `delta_vs_random…` | the same paired difference to random decisions of the same budget (for a fixed schedule: of its cost, within 5 %) |
| `delta_vs_update_1…` | of an update that learns from the wrong thing, the same paired difference to UPDATE_1 |
| `delta_vs_fixed_flops…`, `delta_vs_fixed_seconds…` | the same paired difference to the best of SKIP, UPDATE_1, UPDATE_2, UPDATE_4 and the schedule at equal counted FLOPs and at equal measured seconds (within 1 %, which a clock does not tell apart); between two of them, some streams get one and some the other |
| `delta_vs_rule…`, `best_rule` | of a learned policy, the same paired difference to the rule with the lowest loss among those held to its budget, and that rule; it is chosen on these very streams, which favours it |
| `update_rate`, `share_skip`, `share_update_1`, `share_update_2`, `share_update_4` | share of chunks after which at least one update was made; shares of the four actions |
| `rank_gap` | largest gap between the percentile ranks that a signal has here and those that it had on training streams (0: the percentiles hold) |
| `cost_nominal`, `cost_flops`, `cost_seconds` | means per chunk: the unit of budgets (SKIP = 1), FLOPs counted from the programs that ran, and measured seconds |
| `recovery_vs_skip`, `recovery_vs_random` | share of the gain of an oracle of the same budget that the arm has, given only where costs allow the comparison |
| `note` | why a cell is empty, or what to beware of |
| `run_digest`, `code_digest` | what the row was computed from: the manifests of its records, and the code that made them |
"""

FILES = """\
* `seeds.csv`: one row per arm and seed, the raw values behind the intervals over seeds.
* `frontier.csv`: one row per `score_first` arm and measure of cost. `on_front`: no arm that could be run (oracles and wrong
  lessons could not) costs less and loses less. `area`: mean loss under the policy's lower envelope over the costs from
  `range_low` to `range_high`, which the policy, random decisions and fixed schedules reach; `area_vs_random`, `area_vs_fixed`:
  paired differences over the same costs.
* `signals.csv`: one row per feature, action and fast weights. `rho`: rank correlation of the feature of a chunk with what the
  action on it gains at the next chunk; `rho_within`: of ranks within each stream.
"""

PROTOCOLS = {
    "score_first": "a chunk is scored before anything is learned from it. The only protocol whose numbers are results.",
    "in_chunk": "within a chunk, tokens are read with fast weights updated on earlier mini-batches of the same chunk by a "
    "loss that uses no next-token label. Causal token by token, but it spends its update before the chunk is scored, so "
    "it is never compared with score_first.",
    "transductive": "learns from a chunk and then scores the same chunk. **It leaks labels and is no result**; it is here to "
    "show how large such numbers get.",
}
