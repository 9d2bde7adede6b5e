import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { parseAmount } from '#sandbox/bill.ts'
import { useSandbox } from '#test/support/sandbox.ts'

const WORDS = `
  400 401 402 404 429 quota 500 502 503 529 context prompt-filter retry-ms-5 retry-s-1 retry-date-1 slow-2
  pace-1 hang hang-headers hang-2 cut-headers cut-0 cut-2 end-0 end-2 error-0 error-2 garbage garbage-object garbage-sse
  empty filter no-usage usage-negative usage-strings usage-0 prompt-0 extra-9 overlong-9 times-1 nth-2
`
const words = fc.constantFrom(...WORDS.trim().split(/\s+/u))
const blocks = fc.array(
  fc.constantFrom<object>(
    { type: 'text', text: 'How does the Vrell pump start? Use search.' },
    { type: 'text', text: '', cache_control: { type: 'ephemeral' } },
    { type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } },
    { type: 'tool_result', tool_use_id: 'a', content: [{ type: 'text', text: 'It starts with a lever.' }] },
    { type: 'thinking', thinking: 'hm', signature: '' },
  ),
  { maxLength: 4 },
)
const chatTool = { type: 'function', function: { name: 'search', parameters: { type: 'object' } } }
const exchange = fc.oneof(
  fc.record({
    path: fc.constant('/chat/completions'),
    body: fc.record(
      {
        messages: fc.array(
          fc.record({ role: fc.constantFrom('user', 'tool', 'system', 'assistant'), content: fc.string() }),
        ),
        stream: fc.boolean(),
        stream_options: fc.constant({ include_usage: true }),
        max_tokens: fc.integer({ min: 0, max: 60 }),
        tools: fc.constantFrom([], [chatTool]),
        tool_choice: fc.constantFrom('auto', 'none', 'required'),
        stop: fc.array(fc.string({ maxLength: 2 }), { maxLength: 2 }),
      },
      // Without a limit of its own a request may be answered with all that its model can say.
      { requiredKeys: ['messages', 'max_tokens'] },
    ),
  }),
  fc.record({
    path: fc.constant('/messages'),
    body: fc.record({
      messages: fc.array(fc.record({ role: fc.constantFrom('user', 'assistant'), content: blocks }), { maxLength: 3 }),
      stream: fc.boolean(),
      max_tokens: fc.integer({ min: 1, max: 60 }),
      thinking: fc.constantFrom({ type: 'adaptive' }, { type: 'disabled' }),
    }),
  }),
  fc.record({
    path: fc.constant('/embeddings'),
    body: fc.record({ input: fc.oneof(fc.string(), fc.array(fc.string()), fc.array(fc.nat(300_000))) }),
  }),
)

test(
  'whatever is sent and scripted, each request ends, nothing fails inside, and the bill is the sum of the log',
  { timeout: 60_000 },
  async () => {
    const failed = vi.spyOn(console, 'error')
    const { url, control, readLog } = await useSandbox()
    let sent = 0
    await fc.assert(
      fc.asyncProperty(exchange, fc.array(words, { maxLength: 3 }), async ({ path, body }, script) => {
        sent += 1
        const base = path === '/embeddings' ? 'sandbox-embed' : 'sandbox-thinker'
        try {
          const response = await fetch(url + path, {
            method: 'POST',
            headers: { authorization: 'Bearer sandbox-key' },
            body: JSON.stringify({ model: [base, ...script].join(':'), ...body }),
            signal: AbortSignal.timeout(script.some((word) => word.startsWith('hang')) ? 60 : 5000),
          })
          await response.text()
        } catch {
          // Cut, or given up: the provider's books say the rest.
        }
      }),
      { numRuns: 400 },
    )
    await control('GET', `/counters?ended=${sent}&waitMs=10000`)
    expect(failed).not.toHaveBeenCalled()
    const log = await readLog()
    expect(log).toHaveLength(sent)
    expect(log.filter((request) => request.begun).length).toBeGreaterThan(sent / 10)
    const nano = log.reduce((sum, request) => sum + (parseAmount(request.billed) ?? -1n), 0n)
    const bill = await control('GET', '/bill')
    expect(bill).toMatchObject({ forgotten: 0 })
    expect(JSON.stringify(bill)).toContain(
      `"total":"${nano / 1_000_000_000n}.${String(nano % 1_000_000_000n).padStart(9, '0')}"`,
    )
    for (const request of log) expect(request.usage.completionTokens).toBeLessThan(60 + 9 + 9 + 1)
  },
)
