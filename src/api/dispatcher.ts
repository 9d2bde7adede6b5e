import { admitRuns, markDelivered, waitingCommands, type WaitingCommand } from '#db/command.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyBaseLogger } from 'fastify'
import type { Kysely } from 'kysely'
import type { Orchestrator } from './orchestrator.ts'
import { startRounds, type Rounds } from './rounds.ts'
import { scheduleTeller } from './schedule-teller.ts'
import type { ScheduleClock } from './temporal-schedules.ts'

/** Commands that nobody announced (another process wrote them, or died) are found this often. */
const ROUND_MS = 500
const BACKOFF_BASE_MS = 500
const BACKOFF_MAX_MS = 10_000
/** Commands told to Temporal at the same time, and runs that are given a place before that. */
const COMMANDS_PER_ROUND = 32
/** Beyond this many failing commands Temporal is away, and asking for more of them helps nobody. */
const MAX_WAITING = 1_000

interface Backoff {
  readonly tries: number
  readonly dueMs: number
}

/**
 * Gives waiting runs their places, and tells workflows what their rows say, until told. Several processes may do so at once: a start is refused the second
 * time, a wake says only "look", so a command that is delivered twice does no harm, and no lock is held while Temporal
 * is asked.
 */
export function startDispatcher(options: {
  readonly db: Kysely<Database>
  readonly orchestrator: Orchestrator
  readonly clock: ScheduleClock
  readonly log: Pick<FastifyBaseLogger, 'warn'>
  /** Monotonic clock, in milliseconds. */
  readonly monotonicMs: () => number
}): Rounds {
  const { db, orchestrator, log, monotonicMs } = options
  const tellSchedules = scheduleTeller(options)
  const backoffs = new Map<string, Backoff>()

  async function deliver(command: WaitingCommand): Promise<void> {
    try {
      if (command.kind === 'start') await orchestrator.start(command.run)
      else await orchestrator.wake(command.run.id)
      await markDelivered(db, command.id)
      backoffs.delete(command.id)
    } catch (error) {
      const tries = (backoffs.get(command.id)?.tries ?? 0) + 1
      const waitMs = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (tries - 1))
      backoffs.set(command.id, { tries, dueMs: monotonicMs() + waitMs })
      log.warn({ err: error, commandId: command.id, runId: command.run.id, tries }, 'a command waits for Temporal')
    }
  }

  async function dispatch(isStopped: () => boolean): Promise<boolean> {
    const nowMs = monotonicMs()
    const waiting = Array.from(backoffs).filter(([, { dueMs }]) => dueMs > nowMs)
    if (waiting.length >= MAX_WAITING) return false
    const admitted = await admitRuns(db, COMMANDS_PER_ROUND)
    const commands = await waitingCommands(db, { limit: COMMANDS_PER_ROUND, except: waiting.map(([id]) => id) })
    forgetDelivered(commands, nowMs)
    // A run's commands in their order; different runs side by side.
    const byRun = Map.groupBy(commands, (command) => command.run.id)
    await Promise.all(
      Array.from(byRun.values(), async (some) => {
        for (const command of some) {
          if (isStopped()) return
          await deliver(command)
        }
      }),
    )
    return admitted === COMMANDS_PER_ROUND || commands.length === COMMANDS_PER_ROUND
  }

  /** What is due and is not waiting any more was delivered by another process. */
  function forgetDelivered(commands: readonly WaitingCommand[], nowMs: number): void {
    if (commands.length === COMMANDS_PER_ROUND) return
    const known = new Set(commands.map((command) => command.id))
    for (const [id, { dueMs }] of backoffs) if (dueMs <= nowMs && !known.has(id)) backoffs.delete(id)
  }

  return startRounds(ROUND_MS, async (isStopped) => {
    try {
      const [hasMore] = await Promise.all([dispatch(isStopped), tellSchedules()])
      return hasMore
    } catch (error) {
      log.warn({ err: error }, 'commands cannot be read')
      return false
    }
  })
}
