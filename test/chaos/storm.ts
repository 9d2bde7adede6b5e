import { setTimeout as delay } from 'node:timers/promises'
import type { Kill, Part } from './part.ts'

/** Between two kills, in milliseconds: some come while what the last one killed is still starting. */
const SHORTEST_MS = 2_500
const LONGEST_MS = 6_500

export interface StormOptions {
  readonly parts: readonly Part[]
  readonly durationMs: number
  readonly random: (below: number) => number
  /** Called after each kill. */
  readonly onKill: (kill: Kill) => void
  readonly signal: AbortSignal
}

/** Kills a random part every few seconds, of those that run; their supervisors start them again. */
export async function storm(options: StormOptions): Promise<readonly Kill[]> {
  const { parts, durationMs, random, onKill, signal } = options
  const kills: Kill[] = []
  const deadline = performance.now() + durationMs
  for (;;) {
    const pauseMs = SHORTEST_MS + random(LONGEST_MS - SHORTEST_MS)
    if (performance.now() + pauseMs > deadline) break
    await delay(pauseMs, undefined, { signal })
    const broken = parts.find(({ failure }) => failure !== undefined)
    if (broken) throw broken.failure
    const running = parts.filter(({ isUp }) => isUp)
    const kill = await running[random(Math.max(1, running.length))]?.kill()
    if (!kill) continue
    kills.push(kill)
    onKill(kill)
  }
  return kills
}
