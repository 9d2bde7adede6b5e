import { resolveDeadOf } from '#calls/reconcile.ts'
import type { LostCostPolicy } from '#calls/lost-cost.ts'
import { hasOpenChild, openRuns, type OpenRun } from '#db/open-run.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyBaseLogger } from 'fastify'
import type { Kysely } from 'kysely'
import type { WorkflowCensus } from './workflow-census.ts'

/** How often open runs are compared with Temporal. */
const ROUND_MS = 15_000
/** A run that is closing waits for its requests to be aborted and settled: it is looked at again after this. */
const CLOSING_MS = 1_000
/** A workflow has to be gone for so long: it may have been started, or have finished its run, a moment ago. */
const GRACE_MS = 30_000

interface ReconcilerOptions {
  readonly db: Kysely<Database>
  readonly census: WorkflowCensus
  readonly lostCost: LostCostPolicy
  readonly log: Pick<FastifyBaseLogger, 'warn'>
  readonly monotonicMs: () => number
  readonly roundMs?: number
  readonly graceMs?: number
}

/** A run without a workflow, and how that ended. */
interface Gone {
  readonly run: OpenRun
  readonly how: string
}

/**
 * Closes runs whose workflow is gone, as failed: terminated in Temporal, timed out, or lost with Temporal's database. From
 * the gate's commit on no request of theirs begins; what is in flight settles; the rest goes home. Several processes may do
 * so at once: each step is guarded, and repeating it changes nothing. While Temporal is away nobody is gone.
 */
export function startReconciler(options: ReconcilerOptions): { stop(): Promise<void> } {
  const { db, census, log, monotonicMs, roundMs = ROUND_MS, graceMs = GRACE_MS } = options
  const goneSince = new Map<string, number>()
  let running: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  /** Those that have been gone for long enough. */
  async function overdue(): Promise<readonly Gone[]> {
    const gone = await findGone(db, census)
    const known = new Set(gone.map(({ run }) => run.runId))
    for (const runId of goneSince.keys()) if (!known.has(runId)) goneSince.delete(runId)
    const nowMs = monotonicMs()
    return gone.filter(({ run: { runId } }) => {
      const sinceMs = goneSince.get(runId) ?? nowMs
      goneSince.set(runId, sinceMs)
      return nowMs - sinceMs >= graceMs
    })
  }

  /** Whether one is still closing. */
  async function round(): Promise<boolean> {
    let isClosing = false
    for (const gone of await overdue()) {
      if (isStopped) return false
      try {
        if (!(await close(options, gone))) isClosing = true
      } catch (error) {
        log.warn({ err: error, runId: gone.run.runId }, 'a run without a workflow cannot be closed yet')
      }
    }
    return isClosing
  }

  async function turn(): Promise<void> {
    let isClosing = false
    try {
      isClosing = await round()
    } catch (error) {
      log.warn({ err: error }, 'runs cannot be compared with Temporal')
    }
    if (!isStopped) timer = setTimeout(start, isClosing ? Math.min(CLOSING_MS, roundMs) : roundMs)
  }

  function start(): void {
    running = turn()
  }

  timer = setTimeout(start, roundMs)
  return {
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await running
    },
  }
}

/**
 * Runs that have no workflow. The index says quickly which are well; of the others Temporal is asked one by one, because
 * the index is behind. A child that was not found waits to be started, unless its parent is gone.
 */
async function findGone(db: Kysely<Database>, census: WorkflowCensus): Promise<readonly Gone[]> {
  const living = await census.living()
  const gone = new Map<string, Gone>()
  for await (const page of openRuns(db)) {
    for (const run of page.filter(({ runId }) => !living.has(runId))) {
      const how = await census.endOf(run.runId)
      if (how !== undefined) gone.set(run.runId, { run, how })
    }
  }
  return [...gone.values()].filter(({ run, how }) => {
    const { parentRunId, isParentOver } = run
    return how !== 'not found' || parentRunId === null || isParentOver || gone.has(parentRunId)
  })
}

/** Whether the run is over. Its children are over first: they hold part of its money. */
async function close({ db, lostCost }: ReconcilerOptions, { run, how }: Gone): Promise<boolean> {
  const { runId } = run
  const scope = { projectId: run.projectId }
  const reason = 'workflow_gone'
  const detail = `Its workflow is gone: Temporal says ${how}.`
  await beginClosing(db, scope, { runId, reason, detail, from: 'any' })
  if (await hasOpenChild(db, scope, runId)) return false
  await resolveDeadOf(db, scope, { runId, policy: lostCost, by: 'reconciler' })
  const state = run.endReason === 'cancelled' ? 'cancelled' : 'failed'
  const { finished } = await finishRun(db, scope, { runId, end: { state, reason, detail }, output: null })
  return finished
}
