import type { ProviderKind } from '#contracts/names.ts'
import type { ProviderSettings } from '#contracts/provider-settings.ts'
import { createAnthropic } from './anthropic.ts'
import { createOpenAiCompatible, createOpenRouter } from './openai-compatible.ts'
import type { Connections } from './connections.ts'
import type { Provider } from './provider.ts'

/** What a process gives its providers. */
interface Surroundings {
  readonly nowMs: () => number
  /** Left out: straight to each. */
  readonly connections?: Connections | undefined
}

const kinds = {
  openai: createOpenAiCompatible,
  openrouter: createOpenRouter,
  anthropic: createAnthropic,
} as const satisfies Record<ProviderKind, (options: ProviderSettings & Surroundings) => Provider>

export function createProvider(settings: ProviderSettings, surroundings: Surroundings): Provider {
  return kinds[settings.kind]({ ...settings, ...surroundings })
}
