import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { text, usd } from '../support/api.ts'
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

/** What a client's program is told from outside, with a second key that may spend next to nothing. */
async function environmentOf({ api, tenant, url }: TestGateway): Promise<Readonly<Record<string, string>>> {
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  const poor = await api.make(path, { key: api.operatorKey, body: { name: 'poor' } })
  const cap = { scope: 'key', subjectId: text(poor, 'id'), measure: 'money', period: 'life', cap: usd('0.000000001') }
  await api.make('/api/v1/limits', { key: api.operatorKey, body: cap })
  return {
    PATH: process.env['PATH'] ?? '',
    OPENAI_BASE_URL: `${url}/v1`,
    OPENAI_API_KEY: tenant.key,
    ANTHROPIC_BASE_URL: url,
    ANTHROPIC_API_KEY: tenant.key,
    POOR_KEY: text(poor, 'secret'),
  }
}

const programs = [
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
      const gateway = await useGateway()
      const env = await environmentOf(gateway)
      const { stdout } = await run(command, [here(`programs/${program}`)], { env, timeout: TIMEOUT_MS })
      expect(stdout.trim()).toBe('ok')
      await pollUntil(async () => (await openHolds(gateway)) === 0, { what: 'nothing is held' })
      const log = await gateway.sandbox.readLog()
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
