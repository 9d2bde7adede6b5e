import { connectDatabase } from '#db/database.ts'
import { seeded } from '../support/seeded.ts'
import {
  type Aftermath,
  callsAnsweredOnce,
  type Claim,
  eventsHeardOnce,
  isOver,
  lostWithKills,
  nothingHeld,
  reportsRight,
  requestsKnown,
  rowsOnce,
  runsEnded,
  verified,
} from './claims.ts'
import type { Kill, Part } from './part.ts'
import { readRequests } from './provider.ts'
import { awaitEnds, type RunEnd, type Runs, startRuns } from './runs.ts'
import { storm } from './storm.ts'
import { makeTenant } from './tenant.ts'
import { startTopology, type TemporalKind, type Topology } from './topology.ts'
import { connectWorkflows, type Workflows } from './workflows.ts'

export interface ChaosOptions {
  readonly folder: string
  readonly temporal: TemporalKind
  readonly durationMs: number
  readonly runs: number
  readonly seed: number
  readonly say: (what: string) => void
}

export interface ChaosResult {
  readonly kills: readonly Kill[]
  readonly claims: readonly Claim[]
}

/** Streams end with their runs; a while after that nothing comes any more. */
const STREAMS_DEADLINE_MS = 30_000

/** Starts everything, lets runs proceed through a storm of kills, and looks at what is left. */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const { say } = options
  say('starting Postgres, Temporal, the provider, the API and two workers')
  const topology = await startTopology(options)
  const over = new AbortController()
  const workflows = await connectWorkflows(topology.temporalAddress)
  try {
    const { runs, kills } = await weather({ topology, workflows, options }, over.signal)
    say(`the storm is over after ${kills.length} kills; waiting until every run is`)
    await Promise.all(topology.parts.map((part) => part.up()))
    const states = await awaitEnds(runs, isOver)
    if ([...states.values()].every(({ state }) => isOver(state))) await runs.owners
    for (const { state, detail } of states.values()) if (state === 'failed') say(`a run failed: ${detail}`)
    await awaitStreams(runs)
    return { kills, claims: await examine({ topology, workflows, options, runs, kills, states }) }
  } finally {
    over.abort()
    await workflows.close()
    await topology.stop()
  }
}

interface Stage {
  readonly topology: Topology
  readonly workflows: Workflows
  readonly options: ChaosOptions
}

async function weather({ topology, workflows, options }: Stage, signal: AbortSignal) {
  const { durationMs, say } = options
  const tenant = await makeTenant(topology.apiUrl, topology.operatorKey)
  const place = { apiUrl: topology.apiUrl, workflows, tenant, count: options.runs, durationMs, say, signal }
  const [runs, kills] = await Promise.all([
    startRuns({ ...place, random: seeded(options.seed) }),
    storm({
      parts: topology.parts,
      durationMs,
      random: seeded(options.seed + 1), // its own numbers: which run starts when must not change who is killed
      onKill: ({ part }) => say(`killed ${part}`),
      signal,
    }),
  ])
  return { runs, kills }
}

async function awaitStreams({ followers }: Runs): Promise<void> {
  const deadline = AbortSignal.timeout(STREAMS_DEADLINE_MS)
  const late = new Promise<void>((resolve) => deadline.addEventListener('abort', () => resolve()))
  await Promise.race([Promise.all(followers.map(({ done }) => done)), late])
}

interface Scene extends Stage {
  readonly runs: Runs
  readonly kills: readonly Kill[]
  readonly states: ReadonlyMap<string, RunEnd>
}

async function examine({ topology, workflows, options, runs, kills, states }: Scene): Promise<readonly Claim[]> {
  const db = connectDatabase({ url: topology.databaseUrl, maxConnections: 2, patience: 'unlimited' })
  try {
    const requests = await readRequests(topology.requestLog)
    const aftermath: Aftermath = { db, runs, kills, states, requests }
    return [
      ...(await runsEnded(aftermath)),
      ...(await requestsKnown(aftermath)),
      ...(await callsAnsweredOnce(aftermath)),
      ...(await rowsOnce(aftermath)),
      ...(await lostWithKills(aftermath)),
      ...(await nothingHeld(aftermath)),
      ...(await reportsRight(aftermath)),
      ...(await verified(topology.databaseUrl, options.folder)),
      await eventsHeardOnce(aftermath, runs.followers),
      await workflows.over(),
      endedOnlyWhenKilled(topology.parts, kills),
    ]
  } finally {
    await db.destroy()
  }
}

function endedOnlyWhenKilled(parts: readonly Part[], kills: readonly Kill[]): Claim {
  const ends = parts.flatMap(({ unexpectedEnds }) => unexpectedEnds)
  const each = parts.map(({ name }) => `${name} ${kills.filter(({ part }) => part === name).length}`).join(', ')
  return {
    claim: 'no process ended that was not killed',
    numbers: `${kills.length} kills (${each}); ${ends.length === 0 ? 'none' : ends.join(', ')} by itself`,
    ok: ends.length === 0 && kills.length > 0,
  }
}
