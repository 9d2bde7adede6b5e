import { openChildRun } from '#db/child-run.ts'
import { beginRun } from '#db/run-begin.ts'
import { finishRun } from '#db/run-end.ts'
import { askOwner, pauseForMoney } from '#db/run-pause.ts'
import { standingOf } from '#db/run.ts'
import { newId } from '#db/ids.ts'
import { RUN_PLACES, type RunPlace } from '#domain/run-actions.ts'
import { describe, expect, test } from 'vitest'
import { makeTenant, startTestRun, usd, useApi, type Tenant, type TestApi } from '#test/support/api.ts'

const ACTIONS = ['pause', 'resume', 'top-up', 'cancel', 'wrap_up', 'answer'] as const
type Action = (typeof ACTIONS)[number]

/** State and reason afterwards, or the code of the refusal. */
type Outcome = readonly [state: string, reason: string | null] | string

const OVER = 'run_finished'
const RUNNING = ['running', null] as const
const BY_OWNER = ['paused', 'paused_by_owner'] as const
const FOR_INPUT = ['paused', 'input'] as const
const ENDS = (state: string) => [state, 'cancelled'] as const

const TABLE: Readonly<Record<RunPlace, Readonly<Record<Action, Outcome>>>> = {
  queued: {
    pause: BY_OWNER,
    resume: 'not_paused',
    'top-up': ['queued', null],
    cancel: ENDS('queued'),
    wrap_up: ENDS('queued'),
    answer: 'no_question',
  },
  running: {
    pause: BY_OWNER,
    resume: 'not_paused',
    'top-up': RUNNING,
    cancel: ENDS('running'),
    wrap_up: ENDS('running'),
    answer: 'no_question',
  },
  paused_by_owner: {
    pause: BY_OWNER,
    resume: RUNNING,
    'top-up': BY_OWNER,
    cancel: ENDS('paused'),
    wrap_up: ENDS('paused'),
    answer: 'no_question',
  },
  money_exhausted: {
    pause: BY_OWNER,
    resume: RUNNING,
    'top-up': RUNNING,
    cancel: ENDS('paused'),
    wrap_up: ENDS('paused'),
    answer: 'no_question',
  },
  input: {
    pause: BY_OWNER,
    resume: 'waits_for_answer',
    'top-up': FOR_INPUT,
    cancel: ENDS('paused'),
    wrap_up: ENDS('paused'),
    answer: RUNNING,
  },
  wrapping_up: {
    pause: OVER,
    resume: OVER,
    'top-up': OVER,
    cancel: ENDS('running'),
    wrap_up: ENDS('running'),
    answer: OVER,
  },
  ending: {
    pause: OVER,
    resume: OVER,
    'top-up': OVER,
    cancel: ENDS('running'),
    wrap_up: ENDS('running'),
    answer: OVER,
  },
  finished: { pause: OVER, resume: OVER, 'top-up': OVER, cancel: OVER, wrap_up: OVER, answer: OVER },
}

const BODIES: Readonly<Record<Action, unknown>> = {
  pause: undefined,
  resume: {},
  'top-up': { pockets: [{ balanceClass: 'direct', amount: usd('0.01') }] },
  cancel: { mode: 'now' },
  wrap_up: { mode: 'wrap_up' },
  answer: { answer: 'yes' },
}

const STOP = { limit: 'direct pocket', needed: '2.000000', free: '1.000000', currency: 'USD' }

interface Placed {
  readonly api: TestApi
  readonly tenant: Tenant
  readonly runId: string
}

function ask({ api, tenant, runId }: Placed, action: Action, body: unknown = BODIES[action], headers = {}) {
  const name = action === 'wrap_up' ? 'cancel' : action
  return api.ask('POST', `/api/v1/runs/${runId}/${name}`, { key: tenant.key, body, headers })
}

/** A run that is brought to a place as its workflow and its owner would bring it. */
async function runAt(api: TestApi, tenant: Tenant, place: RunPlace): Promise<Placed> {
  const envelope = { pockets: [{ balanceClass: 'direct', amount: usd('0.05') }] }
  const runId = await startTestRun(api, tenant, { envelope })
  const scope = { projectId: tenant.projectId }
  const placed = { api, tenant, runId }
  if (place !== 'queued') await beginRun(api.db, scope, runId)
  switch (place) {
    case 'queued':
    case 'running':
      break
    case 'paused_by_owner':
      await ask(placed, 'pause')
      break
    case 'money_exhausted':
      await pauseForMoney(api.db, scope, { runId, stop: { ...STOP, refusalId: newId(Date.now()) } })
      break
    case 'input':
      await askOwner(api.db, scope, { runId, path: 'ask', question: 'Go on?', choices: ['yes', 'no'] })
      break
    case 'wrapping_up':
      await ask(placed, 'wrap_up')
      break
    case 'ending':
      await ask(placed, 'cancel')
      break
    case 'finished': {
      const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
      await finishRun(api.db, scope, { runId, end, output: null })
    }
  }
  return placed
}

async function commandsOf({ api, runId }: Placed) {
  const rows = await api.db.selectFrom('command').select('kind').where('run_id', '=', runId).orderBy('id').execute()
  return rows.map((row) => row.kind)
}

async function gateOf({ api, tenant, runId }: Placed) {
  const { body } = await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })
  return body['envelope']
}

test('every action on a run at every place has the verdict of the table', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  for (const place of RUN_PLACES) {
    for (const action of ACTIONS) {
      const answer = await ask(await runAt(api, tenant, place), action)
      const { state, reason, code } = answer.body
      const seen = answer.status === 202 ? [state, reason] : answer.status === 409 ? code : answer
      expect([place, action, seen]).toEqual([place, action, TABLE[place][action]])
    }
  }
}, 120_000)

describe('pausing and resuming', () => {
  test('a pause freezes the envelope, a resume opens it, and each is a command once for its key', async () => {
    const api = await useApi()
    const placed = await runAt(api, await makeTenant(api), 'running')
    const headers = { 'idempotency-key': 'first' }
    const paused = await ask(placed, 'pause', undefined, headers)
    expect(paused.body).toMatchObject({ state: 'paused', detail: 'Paused by its owner.', envelope: { gate: 'frozen' } })
    expect((await ask(placed, 'pause', undefined, headers)).headers['idempotency-replayed']).toBe('true')
    expect((await ask(placed, 'pause', {}, headers)).body['code']).toBe('idempotency_mismatch')
    await ask(placed, 'pause')
    expect(await commandsOf(placed)).toEqual(['start', 'pause'])
    expect((await ask(placed, 'resume')).body).toMatchObject({
      state: 'running',
      detail: null,
      envelope: { gate: 'open' },
    })
    expect(await commandsOf(placed)).toEqual(['start', 'pause', 'resume'])
  })

  test('a run that is paused before it begins is queued again, or goes on where its workflow began meanwhile', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const scope = { projectId: tenant.projectId }
    const placed = await runAt(api, tenant, 'queued')
    const paused = await ask(placed, 'pause')
    expect(paused.body).toMatchObject({ state: 'paused', startedAt: null })
    expect((await ask(placed, 'resume')).body).toMatchObject({ state: 'queued', startedAt: null })
    await ask(placed, 'pause')
    expect(await beginRun(api.db, scope, placed.runId)).toMatchObject({ model: 'steady' })
    expect(await standingOf(api.db, scope, placed.runId)).toBe('paused')
    expect((await ask(placed, 'resume')).body['state']).toBe('running')
  })

  test('a run that is resumed with an open question waits for its answer', async () => {
    const api = await useApi()
    const placed = await runAt(api, await makeTenant(api), 'input')
    await ask(placed, 'pause')
    expect((await ask(placed, 'resume')).body).toMatchObject({ state: 'paused', reason: 'input', detail: 'Go on?' })
    await ask(placed, 'pause')
    expect((await ask(placed, 'answer')).body).toMatchObject({
      state: 'paused',
      reason: 'paused_by_owner',
      question: null,
    })
    expect((await ask(placed, 'resume')).body['state']).toBe('running')
  })
})

describe('topping up', () => {
  test('what has no pocket is refused with the pockets there are, and one key moves money once', async () => {
    const api = await useApi()
    const placed = await runAt(api, await makeTenant(api), 'running')
    for (const pocket of [
      { balanceClass: 'credit', amount: usd('1') },
      { balanceClass: 'direct', amount: { amount: '1', currency: 'EUR' } },
      { balanceClass: 'direct', amount: usd('1'), exchangeTo: 'EUR' },
    ]) {
      const answer = await ask(placed, 'top-up', { pockets: [pocket] })
      expect(answer).toMatchObject({ status: 422, body: { code: 'no_pocket', pockets: ['direct USD'] } })
    }
    const headers = { 'idempotency-key': 'once' }
    const pockets = [{ balanceClass: 'direct', amount: usd('1') }]
    await ask(placed, 'top-up', { pockets }, headers)
    const again = await ask(placed, 'top-up', { pockets }, headers)
    expect(again.body['envelope']).toMatchObject({ pockets: [{ funded: usd('1.050000') }] })
    const other = [{ balanceClass: 'direct', amount: usd('2') }]
    expect(await ask(placed, 'top-up', { pockets: other }, headers)).toMatchObject({
      status: 422,
      body: { code: 'idempotency_mismatch' },
    })
    expect(await gateOf(placed)).toMatchObject({ gate: 'open', pockets: [{ funded: usd('1.050000') }] })
  })

  test('runs below that wait for money go on; those that their owner paused do not', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const scope = { projectId: tenant.projectId }
    const root = await runAt(api, tenant, 'running')
    const open = async (runId: string, path: string) => {
      const child = await openChildRun(api.db, scope, { runId, path, agent: 'echo', input: { text: path } })
      if (child.kind !== 'opened') throw new Error(child.detail)
      await beginRun(api.db, scope, child.runId)
      return { ...root, runId: child.runId }
    }
    const waits = await open(root.runId, 'waits')
    const deeper = await open(waits.runId, 'deeper')
    const rests = await open(root.runId, 'rests')
    await ask(rests, 'pause')
    const stop = { ...STOP, refusalId: newId(Date.now()) }
    for (const { runId } of [deeper, waits]) await pauseForMoney(api.db, scope, { runId, stop })
    expect((await ask(waits, 'top-up')).body['code']).toBe('not_root')
    await ask(root, 'top-up')
    expect(await standingOf(api.db, scope, waits.runId)).toBe('running')
    expect(await standingOf(api.db, scope, deeper.runId)).toBe('running')
    expect(await standingOf(api.db, scope, rests.runId)).toBe('paused')
  })
})

describe('cancelling', () => {
  test('a run that is to deliver first is frozen, and a second cancel ends it now', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const scope = { projectId: tenant.projectId }
    const placed = await runAt(api, tenant, 'wrapping_up')
    expect(await standingOf(api.db, scope, placed.runId)).toBe('wrapping_up')
    expect(await gateOf(placed)).toMatchObject({ gate: 'frozen', gateReason: 'wrapping_up' })
    await ask(placed, 'wrap_up')
    await ask(placed, 'cancel')
    expect(await standingOf(api.db, scope, placed.runId)).toBe('closing')
    expect(await commandsOf(placed)).toEqual(['start', 'cancel', 'cancel'])
    const queued = await runAt(api, tenant, 'queued')
    await ask(queued, 'wrap_up')
    expect(await standingOf(api.db, scope, queued.runId)).toBe('closing')
  })
})

describe('answering', () => {
  test('an answer is one of the choices, for a question that is open, and is kept with the key that gave it', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const scope = { projectId: tenant.projectId }
    const placed = await runAt(api, tenant, 'input')
    const { runId } = placed
    await askOwner(api.db, scope, { runId, path: 'other', question: 'Which?' })
    expect((await ask(placed, 'answer')).body).toMatchObject({ code: 'many_questions', paths: ['ask', 'other'] })
    const off = await ask(placed, 'answer', { path: 'ask', answer: 'perhaps' })
    expect(off).toMatchObject({ status: 422, body: { code: 'not_a_choice', choices: ['yes', 'no'] } })
    const nowhere = await ask(placed, 'answer', { path: 'nowhere', answer: 'yes' })
    expect(nowhere).toMatchObject({ status: 409, body: { code: 'no_question' } })
    expect((await ask(placed, 'answer', { path: 'ask', answer: 'no' })).body['reason']).toBe('input')
    expect((await ask(placed, 'answer', { answer: 'the second' })).body['state']).toBe('running')
    const asked = { runId, path: 'other', question: 'Which?' }
    expect(await askOwner(api.db, scope, asked)).toEqual({ answer: 'the second' })
    const stored = await api.db
      .selectFrom('run_question')
      .select(['path', 'answer', 'answered_by'])
      .orderBy('path')
      .execute()
    expect(stored).toEqual([
      { path: 'ask', answer: 'no', answered_by: tenant.keyId },
      { path: 'other', answer: 'the second', answered_by: tenant.keyId },
    ])
    expect(await commandsOf(placed)).toEqual(['start', 'answer', 'answer'])
  })
})
