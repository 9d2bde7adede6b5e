import { ApiProblem } from '#client/api-problem.ts'
import { PurserClient } from '#client/purser-client.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, useApi, type TestApi } from '../support/api.ts'

async function clientsOf(api: TestApi) {
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const tenant = await makeTenant(api)
  return { tenant, operator: new PurserClient(`${url}/`, api.operatorKey), client: new PurserClient(url, tenant.key) }
}

test('what is refused is thrown, with what to do about it', async () => {
  const api = await useApi()
  const { client, tenant } = await clientsOf(api)
  const refused = client.get('/projects/{id}', { params: { path: { id: 'a b/c' } } })
  await expect(refused).rejects.toMatchObject({ status: 404, problem: { code: 'not_found' } })
  const forbidden = client.post('/projects', { body: { name: 'mine' } }).catch((error: unknown) => error)
  expect(await forbidden).toBeInstanceOf(ApiProblem)
  expect(await forbidden).toMatchObject({ message: expect.stringMatching(/operator/) })
  const nowhere = new PurserClient('http://127.0.0.1:1', tenant.key)
  await expect(nowhere.get('/models')).rejects.toThrow('No Purser answers at http://127.0.0.1:1.')
})

test('a request that is sent again with its key says so, and a change is made of the version that was read', async () => {
  const api = await useApi()
  const { operator } = await clientsOf(api)
  const once = { params: { header: { 'idempotency-key': 'one' } }, body: { name: 'again' } }
  const first = await operator.postOnce('/projects', once)
  expect(await operator.postOnce('/projects', once)).toEqual({ body: first.body, isReplayed: true })
  expect(first.isReplayed).toBe(false)
  const path = { id: first.body.id }
  const { etag } = await operator.getTagged('/projects/{id}', { params: { path } })
  if (etag === null) throw new Error('a project has no ETag')
  const change = { params: { path, header: { 'if-match': etag } }, body: { maxRunningRuns: 3 } }
  expect(await operator.patch('/projects/{id}', change)).toMatchObject({ maxRunningRuns: 3 })
  await expect(operator.patch('/projects/{id}', change)).rejects.toMatchObject({ status: 412 })
})

test('events, files and long answers come as they are', async () => {
  const api = await useApi()
  const { client, tenant } = await clientsOf(api)
  const content = Buffer.from('name,city\nAda,London\n')
  expect(await client.uploadDataset('people', { content, type: 'text/csv' })).toMatchObject({ rows: 1 })
  const id = await startTestRun(api, tenant)
  const left = new AbortController()
  for await (const event of client.events(id, { signal: left.signal })) {
    expect(event.kind).toBe('run.queued')
    break
  }
  left.abort()
  const pieces: Uint8Array[] = []
  for await (const piece of client.download(`/runs/${id}/events?format=json`)) pieces.push(piece)
  expect(JSON.parse(Buffer.concat(pieces).toString())).toMatchObject({ events: [{ kind: 'run.queued' }] })
})
