import { setTimeout as delay } from 'node:timers/promises'
import { runSchema, type RunView } from '#contracts/api-run.ts'
import { isTerminal } from '#domain/run-states.ts'
import { ApiProblem } from '#src/cli/api-client.ts'
import type { PatientClient } from './client.ts'

/** What a run is made of here. */
export interface Place {
  readonly question: string
  readonly corpusId: string
  readonly random: (below: number) => number
}

/** A run that was started, as its owner sees it. */
export interface LiveRun {
  readonly id: string
  readonly client: PatientClient
  readonly random: (below: number) => number
  /** How much of the storm is over, from 0 to 1. */
  readonly progress: () => number
}

export interface RunKind {
  readonly name: string
  /** Of each twenty. */
  readonly count: number
  /** What is posted to `/runs`. */
  readonly request: (place: Place) => Readonly<Record<string, unknown>>
  /** What its owner does while it lives. */
  readonly owner: (run: LiveRun) => Promise<void>
}

const POLL_MS = 700
/** A top-up that is not enough is followed by another, but not for ever. */
const MAX_TOP_UPS = 30

/** Every kind of run there is in a storm. Another one is a row more; the counts add up to twenty. */
export const RUN_KINDS: readonly RunKind[] = [
  {
    name: 'patient: paused for money until the end',
    count: 1,
    request: (place) => research(place, { pockets: [direct('0.0012')], onExhausted: 'pause', breadth: 3 }),
    owner: topUpWhenPaused({ from: 0.8, amount: '0.02' }),
  },
  {
    name: 'two balances, three routes',
    count: 3,
    request: (place) =>
      research(place, { model: 'research', pockets: [credit('0.002'), direct('0.05')], onExhausted: 'cancel' }),
    owner: wait,
  },
  {
    name: 'one balance, one route',
    count: 2,
    request: (place) => research(place, { pockets: [direct('0.05')], onExhausted: 'cancel', breadth: 2 }),
    owner: wait,
  },
  {
    name: 'topped up',
    count: 3,
    request: (place) => research(place, { pockets: [direct('0.003')], onExhausted: 'pause' }),
    owner: topUpWhenPaused({ from: 0, amount: '0.003' }),
  },
  {
    name: 'topped up, clamped',
    count: 1,
    request: (place) => ({
      ...research(place, { pockets: [direct('0.003')], onExhausted: 'pause', breadth: 3 }),
      tight: { policy: 'clamp', floorTokens: 100, parallelism: 3 },
    }),
    owner: topUpWhenPaused({ from: 0, amount: '0.002' }),
  },
  {
    name: 'exhausted, ends',
    count: 2,
    request: (place) => research(place, { pockets: [direct('0.004')], onExhausted: 'cancel' }),
    owner: wait,
  },
  {
    name: 'exhausted, wraps up',
    count: 1,
    request: (place) => research(place, { pockets: [direct('0.006')], onExhausted: 'cancel', wrapUpPercent: 30 }),
    owner: wait,
  },
  {
    name: 'exhausted, goes on cheaper',
    count: 2,
    request: (place) => ({
      ...research(place, { pockets: [direct('0.004')], onExhausted: 'downgrade' }),
      downgrade: { model: 'economy', then: 'pause' },
    }),
    owner: topUpWhenPaused({ from: 0, amount: '0.002' }),
  },
  {
    name: 'cancelled at once',
    count: 2,
    request: (place) => research(place, { model: 'research', pockets: [direct('0.05')], onExhausted: 'pause' }),
    owner: cancelAfter({ withinMs: 9_000, mode: 'now' }),
  },
  {
    name: 'cancelled with a wrap-up',
    count: 1,
    request: (place) => research(place, { pockets: [direct('0.05')], onExhausted: 'pause', wrapUpPercent: 20 }),
    owner: cancelAfter({ withinMs: 9_000, mode: 'wrap_up' }),
  },
  {
    name: 'a provider that fails',
    count: 2,
    request: (place) => ({
      ...research(place, { model: 'shaky', pockets: [direct('0.05')], onExhausted: 'cancel' }),
      mayRepeat: 3,
    }),
    owner: wait,
  },
]

interface ResearchChoice {
  readonly model?: string
  readonly pockets: readonly unknown[]
  readonly onExhausted: 'pause' | 'cancel' | 'downgrade'
  readonly breadth?: number
  readonly wrapUpPercent?: number
}

function research({ question, corpusId, random }: Place, choice: ResearchChoice) {
  const { model = 'steady', pockets, onExhausted, breadth = 2 + random(4), wrapUpPercent = 0 } = choice
  return {
    agent: 'research',
    model,
    input: { question, corpusId, breadth },
    envelope: { pockets, wrapUpPercent },
    onExhausted,
    pauseDeadlineSeconds: 3_600,
  }
}

function direct(amount: string) {
  return { balanceClass: 'direct', amount: { amount, currency: 'USD' } }
}

function credit(amount: string) {
  return { balanceClass: 'credit', amount: { amount, currency: 'USD' } }
}

async function wait(): Promise<void> {}

/** Puts money in whenever the run waits for it. */
function topUpWhenPaused(choice: { readonly from: number; readonly amount: string }): RunKind['owner'] {
  return async ({ id, client, progress }) => {
    for (let topUps = 0; topUps < MAX_TOP_UPS;) {
      const run = await client.get(`/runs/${id}`, runSchema)
      if (isTerminal(run.state)) return
      if (isShort(run) && progress() >= choice.from) {
        topUps += 1
        await client
          .post(`/runs/${id}/top-up`, {
            body: { pockets: [direct(choice.amount)] },
            schema: runSchema,
            idempotencyKey: `${id}-top-up-${topUps}`,
          })
          .catch(ignoreIfOver)
      }
      await delay(POLL_MS)
    }
  }
}

function isShort({ state, reason }: RunView): boolean {
  return state === 'paused' && reason === 'money_exhausted'
}

function cancelAfter(choice: { readonly withinMs: number; readonly mode: 'now' | 'wrap_up' }): RunKind['owner'] {
  return async ({ id, client, random }) => {
    await delay(1_000 + random(choice.withinMs))
    await client
      .post(`/runs/${id}/cancel`, {
        body: { reason: 'the owner has seen enough', mode: choice.mode },
        schema: runSchema,
        idempotencyKey: `${id}-cancel`,
      })
      .catch(ignoreIfOver)
  }
}

/** It was faster than its owner. */
function ignoreIfOver(error: unknown): void {
  if (!(error instanceof ApiProblem) || error.problem.code !== 'run_finished') throw error
}
