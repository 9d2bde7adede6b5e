import { request } from 'node:http'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { startProcess } from '#local/child-process.ts'
import { sandboxAt } from '#test/support/sandbox.ts'
import { useScratchFolder } from '#test/support/scratch.ts'

const STREAMS = 2000
const TEXT = 'One two three four five six seven eight nine ten eleven twelve thirteen.'

/** The provider in a process of its own, as it is used. */
async function startProvider() {
  const folder = await useScratchFolder()
  const provider = await startProcess({
    name: 'sandbox',
    entry: new URL('../../src/sandbox/main.ts', import.meta.url).pathname,
    env: { ...process.env, SANDBOX_PORT: '0', SANDBOX_LOG_FILE: join(folder, 'requests.jsonl') },
    logFile: join(folder, 'sandbox.log'),
  })
  onTestFinished(() => provider.stop())
  const at = z.object({ url: z.string(), controlUrl: z.string() }).parse(provider.ready)
  return sandboxAt(at)
}

/** One stream without a client library, which takes more memory than the stream. */
async function readStream(url: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const body = JSON.stringify({ model: 'sandbox-echo', messages: [{ role: 'user', content: TEXT }], stream: true })
  const req = request(`${url}/chat/completions`, { method: 'POST', headers: { authorization: 'Bearer sandbox-key' } })
  req.once('error', reject)
  req.once('response', (res) => {
    res.setEncoding('utf8')
    let text = ''
    res.on('data', (part: string) => {
      text += part
    })
    res.once('end', () => resolve(text))
    res.once('error', reject)
  })
  req.end(body)
  return promise
}

test(
  `${STREAMS} slow streams at once all arrive whole, and each takes little memory`,
  { timeout: 60_000 },
  async () => {
    const provider = await startProvider()
    await readStream(provider.url)
    const memory = z.object({ rssBytes: z.number() })
    const before = memory.parse(await provider.control('GET', '/memory')).rssBytes
    await provider.control('PUT', '/settings/sandbox-echo', { delayFirstByteMs: 2000, tokensPerSecond: 10 })
    const streams = Promise.all(Array.from({ length: STREAMS }, () => readStream(provider.url)))
    await provider.control('GET', `/counters?begun=${STREAMS + 1}&waitMs=30000`)
    const during = memory.parse(await provider.control('GET', '/memory')).rssBytes
    const texts = await streams
    expect(new Set(texts.map(contentOf))).toEqual(new Set([TEXT.slice(0, 64)]))
    expect(texts.filter((text) => text.endsWith('data: [DONE]\n\n'))).toHaveLength(STREAMS)
    // Measured: 38 KB, of which the socket is most.
    expect((during - before) / STREAMS).toBeLessThan(100_000)
    expect(await provider.control('GET', '/counters')).toMatchObject({ finished: STREAMS + 1, aborted: 0 })
  },
)

const chunkSchema = z.object({ choices: z.array(z.object({ delta: z.object({ content: z.string().optional() }) })) })

function contentOf(text: string): string {
  return text
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => chunkSchema.parse(JSON.parse(event.slice('data: '.length))).choices[0]?.delta.content ?? '')
    .join('')
}
