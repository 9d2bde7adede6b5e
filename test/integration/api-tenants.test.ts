import { newId } from '#db/ids.ts'
import { openRowMap } from '#db/row-map.ts'
import { describe, expect, test } from 'vitest'
import {
  makeOperator,
  makeTenant,
  runBody,
  startTestRun,
  text,
  uploadDataset,
  useApi,
  type TestApi,
} from '#test/support/api.ts'
import { names, pockets, reads, routes, type Ids } from '#test/support/addresses.ts'

async function makeEverything(api: TestApi): Promise<Ids> {
  const tenant = await makeTenant(api)
  const run = await startTestRun(api, tenant)
  const corpus = text(await api.make('/api/v1/corpora', { key: tenant.key, body: { name: 'papers' } }), 'id')
  const documents = [{ source: 'a.md', text: '# Tide\n\nThe tide comes in at noon.' }]
  await api.make(`/api/v1/corpora/${corpus}/documents`, { key: tenant.key, body: { documents } })
  const passage = await api.db
    .selectFrom('passage')
    .select('id')
    .where('corpus_id', '=', corpus)
    .executeTakeFirstOrThrow()
  const row = await api.db.selectFrom('run').selectAll().where('id', '=', run).executeTakeFirstOrThrow()
  const dataset = await uploadDataset(api, tenant)
  const ask = { model: 'steady', maxTokens: 1, messages: [] }
  await openRowMap(api.db, { projectId: tenant.projectId }, { runId: run, path: 'rows', datasetId: dataset, ask })
  const limit = await api.make('/api/v1/limits', {
    key: tenant.key,
    body: { scope: 'run', subjectId: run, measure: 'calls', period: 'day', cap: 5 },
  })
  const schedule = await api.make('/api/v1/schedules', {
    key: tenant.key,
    body: { name: 'hourly', every: 3_600, run: runBody() },
  })
  const webhook = await api.make('/api/v1/webhooks', {
    key: tenant.key,
    body: { url: 'https://example.org/', topics: ['state'] },
  })
  const delivery = newId(Date.now())
  await api.db
    .insertInto('webhook_delivery')
    .values({
      id: delivery,
      webhook_id: text(webhook, 'id'),
      project_id: tenant.projectId,
      source: 'test',
      topic: 'state',
      body: '{}',
      state: 'dead',
      last_status: null,
      last_error: null,
      delivered_at: null,
    })
    .execute()
  const depositRequest = newId(Date.now())
  await api.db
    .insertInto('deposit_request')
    .values({
      id: depositRequest,
      project_id: tenant.projectId,
      wallet_id: tenant.walletId,
      balance_class: 'direct',
      currency: 'USD',
      amount: 1n,
      reference: 'large',
      lot: null,
      asked_by: null,
      decided_by: null,
      decided_at: null,
      transfer_id: null,
    })
    .execute()
  const call = newId(Date.now())
  await api.db
    .insertInto('call')
    .values({
      id: call,
      project_id: tenant.projectId,
      run_id: run,
      envelope_id: row.envelope_id,
      api_key_id: tenant.keyId,
      path: 'one',
      digest: Buffer.from('00', 'hex'),
      model: 'steady',
      catalog_version: 1,
      request_id: newId(Date.now()),
    })
    .execute()
  const deposit = await api.db
    .selectFrom('transfer')
    .select(['id', 'credit_account'])
    .where('project_id', '=', tenant.projectId)
    .where('code', '=', 'deposit')
    .executeTakeFirstOrThrow()
  const { organisation_id: organisation } = await api.db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', tenant.projectId)
    .executeTakeFirstOrThrow()
  return {
    organisation,
    project: tenant.projectId,
    key: tenant.keyId,
    wallet: tenant.walletId,
    account: deposit.credit_account,
    month: thisMonth(),
    deposit: deposit.id,
    run,
    call,
    attempt: '1',
    corpus,
    passage: passage.id,
    limit: text(limit, 'id'),
    schedule: text(schedule, 'id'),
    dataset,
    webhook: text(webhook, 'id'),
    delivery,
    depositRequest,
  }
}

function unknownIds(): Ids {
  const id = () => newId(Date.now())
  const ids = {
    organisation: id(),
    project: id(),
    key: id(),
    wallet: id(),
    account: id(),
    deposit: id(),
    run: id(),
    call: id(),
    corpus: id(),
    passage: id(),
    limit: id(),
    dataset: id(),
    schedule: id(),
    webhook: id(),
    delivery: id(),
    depositRequest: id(),
  }
  return { ...ids, attempt: '1', month: thisMonth() }
}

function thisMonth(): string {
  return new Date().toISOString().slice(0, 7)
}

/** The answer without the id that was asked for. */
async function refusal(api: TestApi, key: string, route: readonly [string, string, unknown?]) {
  const [method, path, body] = route
  if (method !== 'GET' && method !== 'POST' && method !== 'PATCH' && method !== 'DELETE')
    throw new Error(`no such method ${method}`)
  const answer = await api.ask(method, `/api/v1${path}`, { key, body })
  const said = JSON.stringify(answer.body).replaceAll(/[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/g, '<id>')
  return [path.replaceAll(/[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/g, '<id>'), answer.status, said]
}

describe('a foreign id', () => {
  test('is answered exactly like an unknown one: for the key of another project', async () => {
    const api = await useApi()
    const theirs = await makeEverything(api)
    const me = await makeTenant(api)
    const unknown = routes.project(unknownIds())
    for (const [index, route] of routes.project(theirs).entries()) {
      const foreign = await refusal(api, me.key, route)
      expect(foreign[1], `${route[0]} ${route[1]}`).toBe(404)
      expect(foreign).toEqual(await refusal(api, me.key, unknown[index] ?? ['GET', '']))
    }
  })

  test('is answered exactly like an unknown one: for an operator of another organisation', async () => {
    const api = await useApi()
    const theirs = await makeEverything(api)
    const stranger = await makeOperator(api.db, 'another')
    const unknown = routes.operator(unknownIds())
    for (const [index, route] of routes.operator(theirs).entries()) {
      const foreign = await refusal(api, stranger, route)
      expect(foreign[1], `${route[0]} ${route[1]}`).toBe(404)
      expect(foreign).toEqual(await refusal(api, stranger, unknown[index] ?? ['GET', '']))
    }
    const projects = await api.ask('GET', '/api/v1/projects', { key: stranger })
    expect(projects.body).toEqual({ projects: [], nextCursor: null })
  })

  test('of a corpus is refused in the input of a run, and of a passage in another corpus of the project', async () => {
    const api = await useApi()
    const theirs = await makeEverything(api)
    const me = await makeTenant(api)
    const mine = text(await api.make('/api/v1/corpora', { key: me.key, body: { name: 'mine' } }), 'id')
    const passage = await api.ask('GET', `/api/v1/corpora/${mine}/passages/${theirs.passage}`, { key: me.key })
    expect(passage.status).toBe(404)
    const body = {
      agent: 'echo',
      input: { text: 'x', corpusId: theirs.corpus },
      model: 'steady',
      envelope: { pockets },
      onExhausted: 'pause',
    }
    const refused = await api.ask('POST', '/api/v1/runs', { key: me.key, body })
    expect(refused.status).toBe(404)
    const own = await api.ask('POST', '/api/v1/runs', {
      key: me.key,
      body: { ...body, input: { text: 'x', corpusId: mine } },
    })
    expect(own.status).toBe(201)
  })

  test('and something that is no id at all, are told apart by nobody', async () => {
    const api = await useApi()
    const me = await makeTenant(api)
    for (const path of ['/runs/1', '/runs/%00', "/calls/'--", '/corpora/x/passages/y', `/runs/${'a'.repeat(150)}`]) {
      expect([path, (await api.ask('GET', `/api/v1${path}`, { key: me.key })).status]).toEqual([path, 404])
    }
  })
})

test('an operator reads everything of the organisation', async () => {
  const api = await useApi()
  const ids = await makeEverything(api)
  for (const [method, path] of reads(ids)) {
    if (path.endsWith('/events')) continue
    expect([path, (await api.ask(method, `/api/v1${path}`, { key: api.operatorKey })).status]).toEqual([path, 200])
  }
})

test('the walk above knows every address that has an id in it', async () => {
  const api = await useApi()
  const { paths } = (await api.app.inject({ method: 'GET', url: '/api/openapi.json' })).json()
  const walked = new Set(
    [...routes.operator(names), ...routes.project(names)].map(
      ([method, path]) => `${method} /api/v1${path.split('?')[0] ?? ''}`,
    ),
  )
  const known = Object.entries<object>(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  const unwalked = known.filter((route) => route.includes('{') && !walked.has(route))
  // Models, versions of the catalog and providers belong to the installation.
  expect(unwalked.toSorted()).toEqual([
    'DELETE /api/v1/providers/{name}',
    'GET /api/v1/catalog/versions/{version}',
    'GET /api/v1/models/{name}',
    'GET /api/v1/providers/{name}',
    'PATCH /api/v1/providers/{name}',
  ])
})
