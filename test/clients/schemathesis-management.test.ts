import { existsSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { INSTALL } from './install.ts'
import { documentOf, operationsOf, schemathesis, SCHEMATHESIS, type Operation } from './schemathesis.ts'

const TIMEOUT_MS = 480_000
const NOBODY = '00000000-0000-7000-8000-000000000000'

beforeAll(() => {
  if (!existsSync(SCHEMATHESIS)) throw new Error(INSTALL)
})

/** Each operation that a key may ask for, and those that it is refused whatever it sends: its kind is judged first. */
async function sortByRight(
  operations: readonly Operation[],
  ask: (operation: Operation) => Promise<number>,
): Promise<{ readonly allowed: readonly Operation[]; readonly refused: readonly Operation[] }> {
  const statuses = await Promise.all(operations.map(async (operation) => ({ operation, status: await ask(operation) })))
  const which = (isRefused: boolean) =>
    statuses.filter(({ status }) => (status === 403) === isRefused).map(({ operation }) => operation)
  return { allowed: which(false), refused: which(true) }
}

/** What may end the very key that is used, after which all else would be refused. */
function mayEndKey({ method, path }: Operation): boolean {
  return (method === 'delete' && path.endsWith('/keys/{id}')) || path.endsWith('/keys/{id}/rotate')
}

async function statusOf(url: string, key: string, { method, path }: Operation): Promise<number> {
  const answer = await fetch(url + path.replaceAll(/\{\w+\}/g, NOBODY), {
    method: method.toUpperCase(),
    headers: { authorization: `Bearer ${key}` },
  })
  await answer.body?.cancel()
  return answer.status
}

type Who = 'an operator' | 'a project'

/** On a server of its own: what one key has changed or ended, the other would not find. */
async function tryKeyOf(who: Who): Promise<void> {
  const { api, url, tenant } = await useGateway()
  const [key, other] = who === 'an operator' ? [api.operatorKey, tenant.key] : [tenant.key, api.operatorKey]
  const document = await documentOf(api)
  const all = operationsOf(document, '/api/')
  const { allowed, refused } = await sortByRight(all, (operation) => statusOf(url, key, operation))
  expect(refused.length, who).toBeGreaterThan(0)
  expect((await sortByRight(refused, (operation) => statusOf(url, other, operation))).refused, who).toEqual([])
  const tryAll = (operations: readonly Operation[]) =>
    schemathesis({ url, key, document, operations, timeoutMs: TIMEOUT_MS })
  await tryAll(allowed.filter((operation) => !mayEndKey(operation)))
  expect(await statusOf(url, key, { method: 'get', path: '/api/v1/models' }), `the key of ${who} is good`).toBe(200)
  const last = allowed.filter(mayEndKey)
  if (last.length > 0) await tryAll(last)
  await expectVerified(api)
}

test(
  'Schemathesis finds no answer off schema and no failure of ours in the management API, each operation with a key that may ask for it',
  async () => {
    // Both at once: each waits for a program of one thread.
    const tried = await Promise.allSettled([tryKeyOf('an operator'), tryKeyOf('a project')])
    const problems: unknown[] = tried.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
    if (problems.length > 0) throw problems[0]
  },
  TIMEOUT_MS,
)
