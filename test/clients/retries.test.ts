import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { keyCallListSchema } from '../../src/contracts/api-call.ts'
import { beforeAll, expect, test } from 'vitest'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { INSTALL } from './install.ts'

const run = promisify(execFile)
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const PYTHON = here('.venv/bin/python')
const TIMEOUT_MS = 240_000
const catalog = gatewayCatalog({
  steady: [{ upstreamModel: 'sandbox-steady' }],
  // Longer than any client of these waits, once.
  late: [{ upstreamModel: 'sandbox-steady:slow-60000:times-1' }],
  hanging: [{ upstreamModel: 'sandbox-steady:hang' }],
})

beforeAll(() => {
  if (![PYTHON, here('node_modules/ai')].every(existsSync)) throw new Error(INSTALL)
})

/** Takes the only place of the key until somebody else was refused for it. */
async function takeThePlace({ api, sandbox, tenant, url }: TestGateway) {
  const left = new AbortController()
  const statuses: number[] = []
  api.app.server.on('request', (_request, response) => {
    response.once('close', () => {
      if (response.writableFinished) statuses.push(response.statusCode)
      if (response.statusCode === 429) left.abort()
    })
  })
  const body = { model: 'hanging', messages: [{ role: 'user', content: 'wait' }] }
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${tenant.key}` }
  const asked = { method: 'POST', headers, body: JSON.stringify(body), signal: left.signal }
  const gone = fetch(`${url}/v1/chat/completions`, asked).catch(() => 'gone')
  await pollUntil(async () => (await sandbox.readLog()).length === 1, { what: 'the place is taken' })
  return { statuses, gone }
}

const programs = [
  ['OpenAI for Node', process.execPath, 'retries_openai.js', 'waits'],
  ['Anthropic for Node', process.execPath, 'retries_anthropic.js', 'waits'],
  ['OpenAI for Python', PYTHON, 'retries_openai.py', 'waits'],
  ['Anthropic for Python', PYTHON, 'retries_anthropic.py', 'waits'],
  ['LangChain for Python', PYTHON, 'retries_langchain.py', 'waits'],
  ['LangChain for JavaScript', process.execPath, 'retries_langchain.js', 'waits'],
  ['the Vercel AI SDK', process.execPath, 'retries_vercel.js', 'has no time-out'],
] as const

for (const [name, command, program, patience] of programs) {
  test(
    `what ${name} repeats by itself is answered once it is not busy, and paid twice only where it gave up an answer`,
    async () => {
      const gateway = await useGateway({ catalog, limits: { requestsOfKey: 1 } })
      const { sandbox, tenant, url, api } = gateway
      const { statuses, gone } = await takeThePlace(gateway)
      const env = {
        PATH: process.env['PATH'] ?? '',
        OPENAI_BASE_URL: `${url}/v1`,
        OPENAI_API_KEY: tenant.key,
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_API_KEY: tenant.key,
      }
      const { stdout } = await run(command, [here(`programs/${program}`)], { env, timeout: TIMEOUT_MS })
      expect(stdout.trim()).toBe('ok')
      expect(await gone).toBe('gone')
      expect(statuses[0]).toBe(429)
      expect(statuses).toContain(200)
      const asked = (await sandbox.readLog()).map(({ model }) => model)
      // What was refused for being busy never reached the provider.
      expect(asked.filter((model) => model === 'sandbox-steady')).toHaveLength(1)
      const late = asked.filter((model) => model?.includes('slow'))
      const listed = await api.ask('GET', `/api/v1/keys/${tenant.keyId}/calls`, { key: tenant.key })
      const { likelyRepeats } = keyCallListSchema.parse(listed.body)
      if (patience === 'waits') {
        expect(late.length).toBeGreaterThan(1)
        expect(likelyRepeats.flatMap(({ repeats }) => repeats)).toHaveLength(late.length - 1)
      } else expect(likelyRepeats).toEqual([])
      await pollUntil(async () => (await openHolds(gateway)) === 0, { what: 'nothing is held' })
      await expectVerified(api)
    },
    TIMEOUT_MS,
  )
}

async function openHolds({ api }: TestGateway): Promise<number> {
  const open = await api.db.selectFrom('account').select('id').where('pending_debit', '>', 0n).execute()
  return open.length
}
