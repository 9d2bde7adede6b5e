import { beginRun } from '#db/run-begin.ts'
import { finishRun } from '#db/run-end.ts'
import { askOwner } from '#db/run-pause.ts'
import { makeTenant, startTestRun, useApi } from '#test/support/api.ts'
import { expect, test } from 'vitest'

/** Postgres takes no U+0000 in a text, and a provider may write one. */
const ODD = 'a\0b'

async function useRun() {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const scope = { projectId: tenant.projectId }
  await beginRun(api.db, scope, runId)
  const ask = (body: object) => api.ask('POST', `/api/v1/runs/${runId}/answer`, { key: tenant.key, body })
  const get = async () => (await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })).body
  return { ...api, runId, scope, answer: ask, get }
}

test('a run ends whatever a provider wrote into its error, and whatever the names in its output are', async () => {
  const { db, scope, runId, get } = await useRun()
  const end = { state: 'failed', reason: 'call_failed', detail: `the provider said: ${ODD}` } as const
  expect(await finishRun(db, scope, { runId, end, output: { [ODD]: ODD } })).toEqual({ finished: true })
  expect(await get()).toMatchObject({
    state: 'failed',
    detail: 'the provider said: a\uFFFDb',
    output: { 'a\uFFFDb': 'a\uFFFDb' },
  })
})

test('a question may quote whatever a model wrote, and so may the answer that nobody gave', async () => {
  const { db, scope, runId, get } = await useRun()
  await askOwner(db, scope, { runId, path: 'first', question: ODD })
  expect(await get()).toMatchObject({ state: 'paused', question: { path: 'first', text: 'a\uFFFDb' } })
  const late = { runId, path: 'first', question: ODD, otherwise: ODD }
  expect(await askOwner(db, scope, late)).toEqual({ answer: 'a\uFFFDb' })
})

test('a choice with blanks around it can be taken, and comes back as it was given', async () => {
  const { db, scope, runId, answer } = await useRun()
  const question = { runId, path: 'first', question: 'Which?', choices: [' yes\n', 'no'] }
  await askOwner(db, scope, question)
  expect(await answer({ answer: ' yes\n' })).toMatchObject({ status: 202 })
  expect(await askOwner(db, scope, question)).toEqual({ answer: ' yes\n' })
})
