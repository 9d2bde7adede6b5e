import type { LoggedRequest } from './log.ts'

const COLUMNS = [
  'request_id',
  'client_request_id',
  'model',
  'input_tokens',
  'cached_input_tokens',
  'cache_write_tokens',
  'output_tokens',
  'reasoning_tokens',
  'images',
  'amount',
  'currency',
  'at',
]

/** The bill as a provider's invoice: a line for each request that began and has ended. */
export async function* invoiceLines(
  requests: Iterable<LoggedRequest> | AsyncIterable<LoggedRequest>,
  currency: string,
): AsyncGenerator<string> {
  yield toLine(COLUMNS)
  for await (const request of requests) {
    const { id, callKey, attempt, model, usage, billed, at } = request
    yield toLine([
      id,
      attempt === null ? (callKey ?? '') : `${callKey}:${attempt}`,
      model ?? '',
      usage.promptTokens,
      usage.cachedTokens,
      usage.cacheWriteTokens,
      usage.completionTokens,
      usage.reasoningTokens,
      usage.images,
      billed,
      currency,
      at,
    ])
  }
}

/** RFC 4180. */
function toLine(fields: readonly (string | number)[]): string {
  const cells = fields.map((field) => {
    const text = String(field)
    return /[",\r\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  })
  return `${cells.join(',')}\r\n`
}
