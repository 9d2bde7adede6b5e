import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { expect, test } from 'vitest'
import { useSandbox } from '#test/support/sandbox.ts'

const model = 'sandbox-steady'
const content = '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?'

test('settings change while it serves, and go back to the configured ones', async () => {
  const sandbox = await useSandbox()
  await sandbox.control('PUT', `/settings/${model}`, { delayFirstByteMs: 60, tokensPerSecond: 200 })
  const before = performance.now()
  const { usage } = await sandbox.client.chat.completions.create({ model, messages: [{ role: 'user', content }] })
  // Timers may fire a millisecond early.
  expect(performance.now() - before).toBeGreaterThan(60 + 5 * (usage?.completion_tokens ?? 0) - 2)
  await sandbox.control('PUT', `/settings/${model}`, {})
  expect(await sandbox.control('GET', `/settings/${model}`)).toMatchObject({ delayFirstByteMs: 0, tokensPerSecond: 0 })
  await expect(sandbox.control('PUT', `/settings/${model}`, { speed: 1 })).rejects.toThrow(/400.*speed/u)
  await expect(sandbox.control('PUT', '/settings/nobody', {})).rejects.toThrow(/404/u)
  expect(usage?.completion_tokens).toBe(countTokens('The Vrell pump starts with a lever. [p]'))
})
