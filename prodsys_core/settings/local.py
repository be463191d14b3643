"""Django settings from prodsys' configuration file (PRODSYS_CONFIG); what is safe by Django's default stays so."""

from prodsys_core.config import load_config
from prodsys_core.settings.build import database_settings, read_or_make_key

PRODSYS = load_config()

DATABASES = {"default": database_settings(PRODSYS.database)}
SECRET_KEY = read_or_make_key(PRODSYS.state_dir)
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *PRODSYS.web.names]

INSTALLED_APPS = ["prodsys_core.apps.ProdsysConfig"] + [
    f"django.contrib.{name}"
    for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
ROOT_URLCONF = "prodsys_core.urls"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
TIME_ZONE = "UTC"
SESSION_COOKIE_SAMESITE = "Strict"
LOGGING_CONFIG = None
