import { setTimeout as delay } from 'node:timers/promises'
import type { RunView } from '#contracts/api-run.ts'
import { isTerminal } from '#domain/run-states.ts'
import { ApiProblem } from '#client/api-problem.ts'
import type { PatientClient } from './client.ts'

/** A run that was started, as its owner sees it. */
export interface LiveRun {
  readonly id: string
  readonly client: PatientClient
  readonly random: (below: number) => number
  /** How much of the storm is over, from 0 to 1. */
  readonly progress: () => number
  /** Ends its workflow from outside, as an operator can in Temporal's own page. */
  readonly terminate: () => Promise<void>
  /** Another run came of it. */
  readonly began: (id: string) => void
}

export type RunOwner = (run: LiveRun) => Promise<void>

const POLL_MS = 700
/** A top-up that is not enough is followed by another, but not for ever. */
const MAX_TOP_UPS = 60
/** What a run may no longer be asked when it was faster than its owner, or when another kill has repeated the request. */
const TOO_LATE: ReadonlySet<string> = new Set(['run_finished', 'not_paused', 'no_question'])

/** Puts money in when the run waits for it, if it has any for it, and answers what it is asked, until the run is over. */
export function attend(means: {
  readonly topUp?: string
  /** From which part of the storm on it puts money in. */
  readonly from?: number
  readonly answer?: string
}): RunOwner {
  const { topUp, from = 0, answer } = means
  return async (live) => {
    for (let topUps = 0; topUps < MAX_TOP_UPS; await delay(POLL_MS)) {
      const run = await live.client.ask((api) => api.get('/runs/{id}', { params: { path: { id: live.id } } }))
      if (isTerminal(run.state)) return
      if (topUp !== undefined && live.progress() >= from && (isShort(run) || (await areChildrenShort(live, run)))) {
        topUps += 1
        const pockets = [{ balanceClass: 'direct', amount: { amount: topUp, currency: 'USD' } }]
        await act(live, 'top-up', { body: { pockets }, key: `top-up-${topUps}` })
      }
      const { question } = run
      if (answer !== undefined && question) {
        const body = { path: question.path, answer }
        await act(live, 'answer', { body, key: `answer-${question.path}-${question.askedAt}` })
      }
    }
  }
}

function isShort({ state, reason }: { readonly state: string; readonly reason: string | null }): boolean {
  return state === 'paused' && reason === 'money_exhausted'
}

/** A run whose children wait for money is at work itself: its report says how they stand, and only it can be topped up. */
async function areChildrenShort({ id, client }: LiveRun, { agent, state }: RunView): Promise<boolean> {
  if (agent !== 'family' || state !== 'running') return false
  const { children } = await client.ask((api) => api.get('/runs/{id}/report', { params: { path: { id } } }))
  return children.some((child) => [child, ...child.children].some(isShort))
}

export function cancelAfter(choice: { readonly withinMs: number; readonly mode: 'now' | 'wrap_up' }): RunOwner {
  return async (live) => {
    await delay(1_000 + live.random(choice.withinMs))
    await act(live, 'cancel', { body: { reason: 'the owner has seen enough', mode: choice.mode }, key: 'cancel' })
  }
}

export function pauseForAWhile(choice: { readonly withinMs: number; readonly forMs: number }): RunOwner {
  return async (live) => {
    await delay(1_000 + live.random(choice.withinMs))
    await act(live, 'pause', { key: 'pause' })
    await delay(choice.forMs)
    await act(live, 'resume', { key: 'resume' })
  }
}

/** Terminates its workflow: nobody tells the run, and it must be closed all the same. */
export function terminateAfter(choice: { readonly withinMs: number }): RunOwner {
  return async (live) => {
    await delay(1_000 + live.random(choice.withinMs))
    await live.terminate()
  }
}

/** Has all answers used again that are stored (`fork`), or has everything asked anew (`rerun`). */
export function againOnceOver(action: 'fork' | 'rerun'): RunOwner {
  return async ({ id, client, began }) => {
    const state = async () => (await client.ask((api) => api.get('/runs/{id}', { params: { path: { id } } }))).state
    while (!isTerminal(await state())) await delay(POLL_MS)
    const request = { path: { id }, body: {}, idempotencyKey: `${id}-${action}` }
    const next = await client.ask((api) => api.postAsItIs(`/runs/{id}/${action}`, request))
    began(next.id)
  }
}

/** Asks for something once, however often it has to be sent. */
async function act(
  { id, client }: LiveRun,
  action: 'top-up' | 'answer' | 'cancel' | 'pause' | 'resume',
  { body, key }: { readonly body?: unknown; readonly key: string },
): Promise<void> {
  const request = { path: { id }, body: body ?? {}, idempotencyKey: `${id}-${key}` }
  await client
    .ask((api) => api.postAsItIs(`/runs/{id}/${action}`, request))
    .catch((error: unknown) => {
      if (!(error instanceof ApiProblem) || !TOO_LATE.has(error.problem.code)) throw error
    })
}
