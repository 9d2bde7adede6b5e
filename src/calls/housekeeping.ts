import { closeRevokedStanding, emptyIdleStanding } from '#db/envelope.ts'
import { eraseDue } from '#db/erasure.ts'
import { expireKeys } from '#db/key-end.ts'
import { foldLeases, recallLeases } from '#db/lease.ts'
import { resumeLimitedRuns } from '#db/limited-run.ts'
import { expireLots } from '#db/lot.ts'
import { purgeExpired } from '#db/retention.ts'
import { encryptAgain } from '#db/secret-turn.ts'
import type { Engine } from './engine.ts'
import { lookUpAttempts } from './look-up.ts'
import { sweepOrphans } from './lost.ts'

/** Work that every process does now and then, whichever tenant it is for. Many at once do no harm. */
interface Chore {
  readonly everyMs: number
  /** @param isStopped whether the process ends, and waits for it */
  run(engine: Engine, isStopped: () => boolean): Promise<void>
}

const chores: readonly Chore[] = [
  { everyMs: 5_000, run: sweepOrphans },
  { everyMs: 2_000, run: lookUpAttempts },
  { everyMs: 5_000, run: async ({ db }) => void (await expireLots(db)) },
  { everyMs: 5_000, run: async ({ db }) => void (await foldLeases(db)) },
  { everyMs: 5_000, run: async ({ db }) => void (await recallLeases(db)) },
  { everyMs: 5_000, run: async ({ db, nowMs }) => void (await resumeLimitedRuns(db, nowMs())) },
  { everyMs: 5_000, run: async ({ db }) => void (await expireKeys(db)) },
  { everyMs: 5_000, run: async ({ db }) => void (await closeRevokedStanding(db)) },
  { everyMs: 10_000, run: async ({ db, secrets }) => void (secrets && (await encryptAgain(db, secrets.now()))) },
  { everyMs: 30_000, run: async ({ db }) => void (await emptyIdleStanding(db)) },
  { everyMs: 60_000, run: async ({ db }, isStopped) => void (await eraseDue(db, { isStopped })) },
  { everyMs: 60_000, run: async ({ db, retention }) => void (await purgeExpired(db, retention)) },
]

/** A chore that fails because the database is away is made up for by its next turn; it never runs beside itself. */
export function startHousekeeping(engine: Engine): { stop(): Promise<void> } {
  const running = new Set<Promise<void>>()
  let isStopped = false
  const timers = chores.map((chore) => {
    let isBusy = false
    const turnOnce = (): void => {
      if (isBusy) return
      isBusy = true
      const turn = chore
        .run(engine, () => isStopped)
        .catch(() => {})
        .finally(() => {
          isBusy = false
          running.delete(turn)
        })
      running.add(turn)
    }
    turnOnce()
    const timer = setInterval(turnOnce, chore.everyMs)
    timer.unref()
    return timer
  })
  return {
    async stop() {
      isStopped = true
      for (const timer of timers) clearInterval(timer)
      await Promise.all(running)
    },
  }
}
