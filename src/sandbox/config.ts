import type { Prices } from './bill.ts'
import type { FaultRule } from './faults.ts'
import { parsePrices } from './bill.ts'
import { parseFaultRules } from './faults.ts'
import { isRecord, numberOrNull } from './json.ts'

export interface SandboxModel {
  readonly name: string
  readonly prices: Prices
  readonly faults: readonly FaultRule[]
  /** Prompt and answer together may take no more. */
  readonly contextTokens: number
  /** The longest answer, also when the request sets no limit. */
  readonly maxOutputTokens: number
}

export interface SandboxConfig {
  readonly models: ReadonlyMap<string, SandboxModel>
}

const USUAL_CONTEXT_TOKENS = 128_000
const USUAL_MAX_OUTPUT_TOKENS = 4096

/** Reads `{ "models": { "<name>": { "prices", "faults"?, "contextTokens"?, "maxOutputTokens"? } } }`. */
export function parseConfig(value: unknown): SandboxConfig {
  const models = isRecord(value) && isRecord(value['models']) ? value['models'] : null
  if (models === null) throw new TypeError('the sandbox configuration needs an object "models"')
  return { models: new Map(Object.entries(models).map(([name, model]) => [name, parseModel(name, model)])) }
}

function parseModel(name: string, value: unknown): SandboxModel {
  const prices = isRecord(value) ? parsePrices(value['prices']) : null
  if (!isRecord(value) || prices === null) {
    throw new TypeError(
      `model ${name} needs "prices": { "input", "output" } as decimal strings in USD per 1,000,000 tokens`,
    )
  }
  return {
    name,
    prices,
    faults: value['faults'] === undefined ? [] : parseFaultRules(value['faults']),
    contextTokens: numberOrNull(value['contextTokens']) ?? USUAL_CONTEXT_TOKENS,
    maxOutputTokens: numberOrNull(value['maxOutputTokens']) ?? USUAL_MAX_OUTPUT_TOKENS,
  }
}
