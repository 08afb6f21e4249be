import { createTheme, type CSSVariablesResolver, type MantineColorsTuple } from "@mantine/core";

const accent: MantineColorsTuple = [
  "#e8f0fe", "#cfdffb", "#a4c2f7", "#8dbbff", "#6ea8ff", "#4a8af0", "#2f6fe0", "#1d5fd6", "#174fb4", "#123e8e",
];

/** Mantine speaks in HELM's tokens: one scale of sizes, one accent, controls 28 px high. */
export const theme = createTheme({
  primaryColor: "accent",
  primaryShade: { light: 7, dark: 6 },
  colors: { accent },
  fontFamily: "var(--font)",
  fontFamilyMonospace: "var(--mono)",
  fontSizes: { xs: "12px", sm: "12px", md: "13px", lg: "16px", xl: "22px" },
  lineHeights: { xs: "16px", sm: "16px", md: "20px", lg: "24px", xl: "28px" },
  radius: { xs: "3px", sm: "5px", md: "8px", lg: "12px", xl: "16px" },
  defaultRadius: "sm",
  focusRing: "auto",
  cursorType: "pointer",
  components: {
    Button: {
      defaultProps: { size: "xs", variant: "default" },
      vars: () => ({ root: { "--button-height": "28px", "--button-padding-x": "10px", "--button-fz": "12px" } }),
    },
    ActionIcon: { defaultProps: { variant: "subtle", color: "gray", size: 28 } },
    TextInput: { defaultProps: { size: "xs" } },
    PasswordInput: { defaultProps: { size: "xs" } },
    NumberInput: { defaultProps: { size: "xs" } },
    Select: { defaultProps: { size: "xs", allowDeselect: false } },
    Textarea: { defaultProps: { size: "xs" } },
    Checkbox: { defaultProps: { size: "xs" } },
    MultiSelect: { defaultProps: { size: "xs" } },
    SegmentedControl: { defaultProps: { size: "xs" } },
    Modal: { defaultProps: { radius: "lg", centered: true, overlayProps: { color: "#04060a", backgroundOpacity: 0.6 } } },
    Tooltip: { defaultProps: { openDelay: 250, withArrow: false, multiline: true } },
  },
});

const fromTokens = {
  "--mantine-color-body": "var(--bg)",
  "--mantine-color-text": "var(--ink)",
  "--mantine-color-dimmed": "var(--ink-3)",
  "--mantine-color-anchor": "var(--accent)",
  "--mantine-color-error": "var(--crit)",
  "--mantine-color-placeholder": "var(--ink-3)",
  "--mantine-color-default": "var(--raised)",
  "--mantine-color-default-hover": "var(--hover)",
  "--mantine-color-default-color": "var(--ink)",
  "--mantine-color-default-border": "var(--line-strong)",
  "--mantine-color-disabled": "var(--sunken)",
  "--mantine-color-disabled-color": "var(--ink-3)",
  "--mantine-color-disabled-border": "var(--line)",
  "--mantine-color-gray-light-hover": "var(--hover)",
};

/** The tokens decide; Mantine's own palette is only seen through them. */
export const cssVariables: CSSVariablesResolver = () => ({ variables: {}, light: fromTokens, dark: fromTokens });
