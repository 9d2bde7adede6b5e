import type { MaxTokensField, ProviderKind } from '#contracts/names.ts'
import { createAnthropic } from './anthropic.ts'
import { createOpenAiCompatible, createOpenRouter } from './openai-compatible.ts'
import type { Provider } from './provider.ts'

/** A provider as it is configured. */
interface ProviderSettings {
  readonly name: string
  readonly kind: ProviderKind
  readonly baseUrl: string
  readonly apiKey: string
  readonly maxTokensField?: MaxTokensField | undefined
  readonly promptCache?: boolean | undefined
}

const kinds = {
  openai: createOpenAiCompatible,
  openrouter: createOpenRouter,
  anthropic: createAnthropic,
} as const satisfies Record<ProviderKind, (options: ProviderSettings & { readonly nowMs: () => number }) => Provider>

export function createProvider(settings: ProviderSettings, { nowMs }: { readonly nowMs: () => number }): Provider {
  return kinds[settings.kind]({ ...settings, nowMs })
}
