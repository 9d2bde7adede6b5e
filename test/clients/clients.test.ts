import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { text, usd } from '../support/api.ts'
import { gatewayCatalog } from '../support/gateway-models.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { INSTALL } from './install.ts'

const run = promisify(execFile)
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const PYTHON = here('.venv/bin/python')
const TIMEOUT_MS = 240_000

beforeAll(() => {
  const missing = [PYTHON, here('node_modules/ai')].filter((path) => !existsSync(path))
  if (missing.length === 0) return
  throw new Error(INSTALL)
})

/** What a client's program is told from outside, with a key that may spend next to nothing, and one that is used up. */
async function environmentOf(gateway: TestGateway) {
  const { tenant, url } = gateway
  const busyKey = await limitedKey(gateway, { measure: 'calls', period: 'month', cap: 1 })
  await useUp(gateway, busyKey)
  return {
    PATH: process.env['PATH'] ?? '',
    OPENAI_BASE_URL: `${url}/v1`,
    OPENAI_API_KEY: tenant.key,
    ANTHROPIC_BASE_URL: url,
    ANTHROPIC_API_KEY: tenant.key,
    POOR_KEY: await limitedKey(gateway, { measure: 'money', period: 'life', cap: usd('0.000000001') }),
    BUSY_KEY: busyKey,
  }
}

async function limitedKey({ api, tenant }: TestGateway, cap: object): Promise<string> {
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  const key = await api.make(path, { key: api.operatorKey, body: { name: 'limited' } })
  const body = { scope: 'key', subjectId: text(key, 'id'), ...cap }
  await api.make('/api/v1/limits', { key: api.operatorKey, body })
  return text(key, 'secret')
}

/** Makes the one call that a key has this month. */
async function useUp({ url }: TestGateway, key: string): Promise<void> {
  const { status } = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'steady', messages: [{ role: 'user', content: 'Hello' }], max_tokens: 20 }),
  })
  expect(status).toBe(200)
}

/** Counts what a server is asked with each key. */
function countRequests({ api }: TestGateway): (key: string) => number {
  const keys: string[] = []
  api.app.server.on('request', ({ headers }) => {
    keys.push(headers.authorization?.replace('Bearer ', '') ?? String(headers['x-api-key']))
  })
  return (key) => keys.filter((each) => each === key).length
}

const programs = [
  ['OpenAI for Node', process.execPath, 'openai.js'],
  ['Anthropic for Node', process.execPath, 'anthropic.js'],
  ['OpenAI for Python', PYTHON, 'openai_client.py'],
  ['Anthropic for Python', PYTHON, 'anthropic_client.py'],
  ['LangChain for Python', PYTHON, 'langchain_client.py'],
  ['the Vercel AI SDK', process.execPath, 'vercel.js'],
  ['LangChain for JavaScript', process.execPath, 'langchain.js'],
] as const

for (const [name, command, program] of programs) {
  test(
    `${name} is answered, refused and left as it expects, and what it did is paid`,
    async () => {
      const gateway = await useGateway({ catalog: gatewayCatalog })
      const env = await environmentOf(gateway)
      const requestsWith = countRequests(gateway)
      const { stdout } = await run(command, [here(`programs/${program}`)], { env, timeout: TIMEOUT_MS })
      expect(stdout.trim()).toBe('ok')
      // Told not to, none repeats what is refused.
      expect([requestsWith(env.POOR_KEY), requestsWith(env.BUSY_KEY)]).toEqual([1, 1])
      await pollUntil(async () => (await openHolds(gateway)) === 0, { what: 'nothing is held' })
      const log = await gateway.sandbox.readLog()
      // The stream that its client left ended at the provider as well.
      expect(
        log.filter(({ clientGoneAt, model }) => clientGoneAt !== undefined && model?.includes('pace')),
      ).toHaveLength(1)
      const attempts = await gateway.api.db.selectFrom('attempt').select('call_id').execute()
      expect(log.length).toBeLessThanOrEqual(attempts.length)
      await expectVerified(gateway.api)
    },
    TIMEOUT_MS,
  )
}

async function openHolds({ api }: TestGateway): Promise<number> {
  const open = await api.db.selectFrom('account').select('id').where('pending_debit', '>', 0n).execute()
  return open.length
}
