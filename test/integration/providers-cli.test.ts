import { secretBox } from '#db/secret-box.ts'
import { spawn } from 'node:child_process'
import { expect, test } from 'vitest'
import { useApi } from '../support/api.ts'

/** The command as a person starts it, with something on its standard input. */
async function usePurser() {
  const api = await useApi()
  const address = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const env = {
    ...process.env,
    PURSER_URL: address,
    PURSER_KEY: api.operatorKey,
    LUX_KEY: 'lux-0123456789-by-environment',
  }
  const purser = (args: readonly string[], input = '') =>
    new Promise<{ readonly code: number | null; readonly said: string }>((resolve) => {
      const child = spawn(process.execPath, ['src/cli/main.ts', ...args], { env })
      let said = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (piece: string) => {
          said += piece
        })
      }
      child.once('close', (code) => resolve({ code, said }))
      child.stdin.end(input)
    })
  return { api, purser }
}

test('providers are listed, added, changed and removed; a key comes from the environment or standard input', async () => {
  const { purser } = await usePurser()
  const add = ['providers', 'add', 'lux', '--url', 'https://lux.example/v1', '--key-env', 'LUX_KEY']
  const added = await purser([...add, '--max-tokens-field', 'max_tokens'])
  expect(added).toEqual({ code: 0, said: 'lux is asked at https://lux.example/v1 with the key …ment.\n' })
  const change = ['providers', 'change', 'lux', '--key-stdin']
  const changed = await purser(change, 'lux-9876543210-by-stdin\n')
  expect(changed).toEqual({ code: 0, said: 'lux is asked at https://lux.example/v1 with the key …tdin.\n' })
  const listed = await purser(['providers'])
  expect(listed.said).toMatch(/^ {2}lux +openai +https:\/\/lux\.example\/v1 +…tdin .* stored$/m)
  expect(listed.said).toMatch(/^ {2}sandbox .* environment$/m)
  expect((await purser(['providers', '--json'])).said).toContain('"keyHint": "…tdin"')
  expect((await purser(['providers', 'remove', 'sandbox'])).said).toContain('Change PURSER_PROVIDERS')
  expect((await purser(['secrets'])).said).toMatch(/^New secrets: key (\w{8})\n.*\n {2}\1 +1$/m)
  expect(await purser(['providers', 'remove', 'lux'])).toMatchObject({ code: 0 })

  for (const [args, why] of [
    [['providers', 'add', 'lux', '--url', 'https://lux.example/v1'], 'the key is missing'],
    [[...add, '--key-stdin'], 'either --key-env or --key-stdin'],
    [['providers', 'add', 'lux', '--url', 'https://lux.example', '--key-env', 'NO_SUCH'], 'has no NO_SUCH'],
    [['providers', 'add', 'lux', '--key-env', 'LUX_KEY'], '--url is missing'],
    [['providers', 'add', 'lux', '--key=lux-0123456789-by-argument'], "Unknown option '--key'"],
    [['providers', 'change', 'lux'], 'say what to change'],
  ] as const) {
    const { code, said } = await purser(args)
    expect([code, said]).toEqual([2, expect.stringContaining(why)])
    expect(said).not.toContain('0123456789')
  }
}, 240_000)

test('a printed key is one that encrypts, and each is another', async () => {
  const { purser } = await usePurser()
  const lines = await Promise.all([purser(['secrets', 'key']), purser(['secrets', 'key'])])
  const boxes = lines.map(({ said }) => secretBox(said))
  expect(new Set(boxes.map(({ keyId }) => keyId)).size).toBe(2)
  const [box] = boxes
  expect(box?.decrypt(['x'], box.encrypt(['x'], Buffer.from('secret'))).toString()).toBe('secret')
}, 240_000)
